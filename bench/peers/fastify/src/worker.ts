import { Worker, type Job } from "bullmq";
import type { Journal } from "./journal.js";
import type { Order } from "./order.js";
import { ATTEMPTS, QUEUE_NAME } from "./queue.js";
import { readSettings } from "./settings.js";
import { Venues } from "./venues.js";
import { openJournal, openPool, openRedis } from "./wiring.js";

async function execute(order: Order, journal: Journal, venues: Venues): Promise<void> {
  await journal.advance(order.orderId, "routing", {});
  const quote = await venues.bestQuote(order);
  await journal.advance(order.orderId, "building", { venue: quote.venue, price: quote.price, fee: quote.fee });
  await journal.advance(order.orderId, "submitted", { venue: quote.venue });
  const swap = await venues.swap(order, quote);
  await journal.advance(order.orderId, "confirmed", { txHash: swap.txHash, amountOut: swap.amountOut });
}

const settings = readSettings();
const pool = openPool(settings);
const redis = openRedis(settings);
const journal = openJournal(settings, pool, redis);
const venues = new Venues(settings.delayScale);

const worker = new Worker(
  QUEUE_NAME,
  async (job: Job<Order>) => {
    try {
      await execute(job.data, journal, venues);
    } catch (error) {
      // BullMQ tries again; the order fails if its last attempt fails.
      if (job.attemptsMade + 1 >= ATTEMPTS) await journal.advance(job.data.orderId, "failed", { error: String(error) });
      throw error;
    }
  },
  { connection: openRedis(settings), prefix: settings.keyPrefix, concurrency: settings.concurrency },
);
worker.on("error", (error) => console.error(error));
await worker.waitUntilReady();
console.log("ready");

process.once("SIGTERM", () => {
  void worker.close().finally(() => process.exit(0));
});
