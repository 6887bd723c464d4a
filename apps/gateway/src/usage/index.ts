export { Usage } from './usage.service.js';
