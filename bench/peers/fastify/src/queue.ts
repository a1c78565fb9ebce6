import { Queue, type JobsOptions } from "bullmq";
import type { Redis } from "ioredis";
import type { Order } from "./order.js";

export const QUEUE_NAME = "orders";
export const JOB_NAME = "execute";
export const ATTEMPTS = 3;

export type OrderQueue = Queue<Order, void, typeof JOB_NAME>;

export function openQueue(connection: Redis, prefix: string): OrderQueue {
  return new Queue(QUEUE_NAME, { connection, prefix });
}

export function jobOptions(order: Order): JobsOptions {
  return {
    jobId: order.orderId,
    attempts: ATTEMPTS,
    backoff: { type: "exponential", delay: 1000 },
    removeOnComplete: true,
    removeOnFail: 1000,
  };
}
