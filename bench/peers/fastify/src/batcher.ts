interface Waiting<Item, Result> {
  readonly item: Item;
  readonly resolve: (result: Result) => void;
  readonly reject: (reason: unknown) => void;
}

/**
 * Group commit: what arrives in a turn of the event loop, or while a write is under way, is written together next.
 * There is no timer, so a single item is written at once.
 */
export class Batcher<Item, Result> {
  private waiting: Waiting<Item, Result>[] = [];
  private busy = false;

  /** `write` returns one result for each item, in order; if it fails, all of its items fail. */
  constructor(
    private readonly write: (items: readonly Item[]) => Promise<readonly Result[]>,
    private readonly most = 1000,
  ) {}

  add(item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ item, resolve, reject });
      if (!this.busy) {
        this.busy = true;
        setImmediate(() => void this.flush());
      }
    });
  }

  private async flush(): Promise<void> {
    while (this.waiting.length > 0) {
      const batch = this.waiting.splice(0, this.most);
      try {
        const results = await this.write(batch.map((it) => it.item));
        batch.forEach((it, index) => it.resolve(results[index] as Result));
      } catch (error) {
        for (const it of batch) it.reject(error);
      }
    }
    this.busy = false;
  }
}
