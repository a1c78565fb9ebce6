import type { Redis } from "ioredis";
import type { WebSocket } from "ws";
import { channelOf, type Journal } from "./journal.js";
import { isTerminal, type OrderEvent } from "./order.js";

class Watcher {
  private lastSeq = 0;
  /** Live events that arrive before the history has been read; null from then on. */
  private early: OrderEvent[] | null = [];

  constructor(private readonly socket: WebSocket) {}

  live(event: OrderEvent): void {
    if (this.early === null) this.send(event);
    else this.early.push(event);
  }

  replay(history: readonly OrderEvent[]): void {
    const early = this.early ?? [];
    this.early = null;
    for (const event of [...history, ...early]) this.send(event);
  }

  private send(event: OrderEvent): void {
    if (event.seq <= this.lastSeq || this.socket.readyState !== this.socket.OPEN) return;
    this.lastSeq = event.seq;
    this.socket.send(JSON.stringify(event));
    if (isTerminal(event.status)) this.socket.close(1000);
  }
}

interface Followed {
  readonly watchers: Set<Watcher>;
  readonly subscribed: Promise<unknown>;
}

/** One Redis connection that follows the channels of all orders with watchers. */
export class Streams {
  private readonly followed = new Map<string, Followed>();

  constructor(
    private readonly subscriber: Redis,
    private readonly journal: Journal,
  ) {
    subscriber.on("message", (channel: string, message: string) => {
      const followed = this.followed.get(channel);
      if (followed === undefined) return;
      const event = JSON.parse(message) as OrderEvent;
      for (const watcher of followed.watchers) watcher.live(event);
    });
  }

  /** Sends the order's past and future events, and closes after its last one. */
  async watch(orderId: string, socket: WebSocket): Promise<void> {
    const channel = channelOf(orderId);
    const watcher = new Watcher(socket);
    let followed = this.followed.get(channel);
    if (followed === undefined) {
      followed = { watchers: new Set(), subscribed: this.subscriber.subscribe(channel) };
      this.followed.set(channel, followed);
    }
    followed.watchers.add(watcher);
    socket.on("error", () => socket.terminate());
    socket.once("close", () => this.leave(channel, watcher));
    // Subscribed first: events that are too late for the history arrive live.
    await followed.subscribed;
    watcher.replay(await this.journal.history(orderId));
  }

  private leave(channel: string, watcher: Watcher): void {
    const followed = this.followed.get(channel);
    followed?.watchers.delete(watcher);
    if (followed?.watchers.size !== 0) return;
    this.followed.delete(channel);
    this.subscriber.unsubscribe(channel).catch((error: unknown) => console.error(error));
  }
}
