import type { Redis } from "ioredis";
import type { Pool } from "pg";
import { channelOf, eventOfRow, firstEvent, type HistoryRow, type Journal } from "./journal.js";
import type { Details, Order, OrderEvent, Status } from "./order.js";
import { JOB_NAME, jobOptions, type OrderQueue } from "./queue.js";
import { ACCEPT, ADVANCE, HISTORY } from "./sql.js";

/** A statement, which is a commit, and a PUBLISH for each event. The update and the insert share the statement. */
export class OneByOne implements Journal {
  constructor(
    private readonly pool: Pool,
    private readonly redis: Redis,
    private readonly queue: OrderQueue,
  ) {}

  async accept(order: Order): Promise<void> {
    await this.pool.query({
      name: "accept",
      text: ACCEPT,
      values: [
        order.orderId,
        order.type,
        order.tokenIn,
        order.tokenOut,
        order.amountIn,
        order.slippageBps,
        order.createdAtMs,
      ],
    });
    await Promise.all([this.queue.add(JOB_NAME, order, jobOptions(order)), this.publish(firstEvent(order))]);
  }

  async advance(orderId: string, status: Status, details: Details): Promise<void> {
    const timestampMs = Date.now();
    const { rows } = await this.pool.query<{ seq: number }>({
      name: "advance",
      text: ADVANCE,
      values: [
        orderId,
        status,
        timestampMs,
        details.venue ?? null,
        details.amountOut ?? null,
        details.txHash ?? null,
        details.error ?? null,
        JSON.stringify(details),
      ],
    });
    const row = rows[0];
    if (row === undefined) throw new Error(`order ${orderId} has ended already`);
    await this.publish({ orderId, seq: row.seq, status, timestampMs, data: details });
  }

  async history(orderId: string): Promise<OrderEvent[]> {
    const { rows } = await this.pool.query<HistoryRow>({ name: "history", text: HISTORY, values: [[orderId]] });
    return rows.map(eventOfRow);
  }

  private async publish(event: OrderEvent): Promise<void> {
    await this.redis.publish(channelOf(event.orderId), JSON.stringify(event));
  }
}
