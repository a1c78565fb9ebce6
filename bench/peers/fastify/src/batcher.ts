interface Waiting<Item, Result> {
  readonly item: Item;
  readonly resolve: (result: Result) => void;
  readonly reject: (reason: unknown) => void;
}

/**
 * Group commit: items that arrive in one turn of the event loop, or during other writes, are written together next.
 * There is no timer, so a single item is written at once. Two writes may be under way: with ten jobs at once that was
 * faster on average than one (three runs of either, which vary much), with a hundred it was the same.
 */
export class Batcher<Item, Result> {
  private waiting: Waiting<Item, Result>[] = [];
  private flushes = 0;

  /** `write` returns one result for each item, in order; if it fails, all of its items fail. */
  constructor(
    private readonly write: (items: readonly Item[]) => Promise<readonly Result[]>,
    private readonly mostItems = 1000,
    private readonly mostFlushes = 2,
  ) {}

  add(item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ item, resolve, reject });
      if (this.flushes < this.mostFlushes) {
        this.flushes += 1;
        setImmediate(() => void this.flush());
      }
    });
  }

  private async flush(): Promise<void> {
    while (this.waiting.length > 0) {
      const batch = this.waiting.splice(0, this.mostItems);
      try {
        const results = await this.write(batch.map((it) => it.item));
        batch.forEach((it, index) => it.resolve(results[index] as Result));
      } catch (error) {
        for (const it of batch) it.reject(error);
      }
    }
    this.flushes -= 1;
  }
}
