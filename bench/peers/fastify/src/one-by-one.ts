import type { Redis } from "ioredis";
import type { Pool } from "pg";
import { channelOf, eventOfRow, firstEvent, type HistoryRow, type Journal } from "./journal.js";
import type { Change, Details, Order, OrderEvent, Status } from "./order.js";
import { JOB_NAME, jobOptions, type OrderQueue } from "./queue.js";
import { HISTORY } from "./sql.js";

/** How one order or one change reaches the database. */
export interface Writes {
  /** Stores the order with its first event. */
  insert(order: Order): Promise<void>;
  /** Stores the change with its event; returns its seq, or undefined if the order has ended already. */
  change(change: Change): Promise<number | undefined>;
}

/** A commit and a PUBLISH for each event. */
export class OneByOne implements Journal {
  constructor(
    private readonly writes: Writes,
    private readonly pool: Pool,
    private readonly redis: Redis,
    private readonly queue: OrderQueue,
  ) {}

  async accept(order: Order): Promise<void> {
    await this.writes.insert(order);
    await Promise.all([this.queue.add(JOB_NAME, order, jobOptions(order)), this.publish(firstEvent(order))]);
  }

  async advance(orderId: string, status: Status, details: Details): Promise<void> {
    const timestampMs = Date.now();
    const seq = await this.writes.change({ orderId, status, timestampMs, details });
    if (seq === undefined) throw new Error(`order ${orderId} has ended already`);
    await this.publish({ orderId, seq, status, timestampMs, data: details });
  }

  async history(orderId: string): Promise<OrderEvent[]> {
    const { rows } = await this.pool.query<HistoryRow>({ name: "history", text: HISTORY, values: [[orderId]] });
    return rows.map(eventOfRow);
  }

  private async publish(event: OrderEvent): Promise<void> {
    await this.redis.publish(channelOf(event.orderId), JSON.stringify(event));
  }
}
