import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Order } from "./order.js";

export interface Quote {
  readonly venue: string;
  readonly price: number;
  readonly fee: number;
  readonly amountOut: number;
}

export interface Swap {
  readonly txHash: string;
  readonly amountOut: number;
}

const BASE_PRICE = 150;
const VENUES = [
  { venue: "raydium", fee: 0.003, low: 0.98, spread: 0.04 },
  { venue: "meteora", fee: 0.002, low: 0.97, spread: 0.05 },
] as const;

/** The simulated venues: 200 ms for a quote and 2–3 s for a swap, times `delayScale`. */
export class Venues {
  constructor(private readonly delayScale: number) {}

  async bestQuote(order: Order): Promise<Quote> {
    const quotes = await Promise.all(VENUES.map((venue) => this.quote(venue, order)));
    return quotes.reduce((best, it) => (it.amountOut > best.amountOut ? it : best));
  }

  async swap(order: Order, quote: Quote): Promise<Swap> {
    await this.delay(2000 + 1000 * Math.random());
    const amountOut = quote.amountOut * (0.9995 + 0.001 * Math.random());
    if (amountOut < quote.amountOut * (1 - order.slippageBps / 10_000)) throw new Error("slippage exceeded");
    return { txHash: randomBytes(32).toString("hex"), amountOut };
  }

  private async quote(terms: (typeof VENUES)[number], order: Order): Promise<Quote> {
    await this.delay(200);
    const price = BASE_PRICE * (terms.low + terms.spread * Math.random());
    return { venue: terms.venue, price, fee: terms.fee, amountOut: order.amountIn * price * (1 - terms.fee) };
  }

  private async delay(ms: number): Promise<void> {
    if (this.delayScale > 0) await sleep(ms * this.delayScale);
  }
}
