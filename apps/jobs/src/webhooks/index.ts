export { postWebhook, type WebhookOutcome } from './webhook.service.js';
