export { InjectRedis, RedisModule, redisToken } from './redis.module.js';
