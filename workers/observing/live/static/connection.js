// The line to the coordinator: everything once, then news as it comes; quiet when the run has ended or is out of reach.

const RETRY_SECONDS = [1, 3, 10, 30, 60, 120];
const STARTING_SECONDS = 1;

export class Connection {
  /** `took` is called after the model has changed, `said` with the state of the line: starting, live, ended or lost. */
  constructor(model, took, said) {
    Object.assign(this, { model, took, said, source: null, timer: null, failures: 0 });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.timer !== null && this.failures > 0) this.again();
    });
  }

  /** Begin anew, at once. */
  again() {
    this.stop();
    this.load();
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = null;
    this.source?.close();
    this.source = null;
  }

  async load() {
    let all;
    try {
      const answer = await fetch("/history.json", { cache: "no-store", signal: AbortSignal.timeout(15000) });
      if (!answer.ok) throw new Error(`history.json: ${answer.status}`);
      all = await answer.json();
    } catch {
      this.lost();
      return;
    }
    this.failures = 0;
    if (all.facts === null) {
      this.said("starting");
      this.later(STARTING_SECONDS);
      return;
    }
    this.model.take(all, true);
    this.took();
    this.said("live");
    if (this.model.outcome !== null) this.ended();
    else this.follow();
  }

  follow() {
    this.stop();
    const source = (this.source = new EventSource(`/events?after=${encodeURIComponent(this.model.id)}`));
    source.addEventListener("update", (message) => {
      this.failures = 0;
      this.model.take(JSON.parse(message.data));
      this.took();
      this.said("live");
    });
    source.addEventListener("reset", () => this.again());
    source.addEventListener("end", () => this.ended());
    source.addEventListener("error", () => {
      this.stop();
      this.lost();
    });
  }

  /** The run is over; nothing follows, unless everything is going to be started again. */
  ended() {
    this.stop();
    this.said("ended");
    if (this.model.outcome?.startsWith("failed") && this.model.setting("restart") === "job") this.lost();
  }

  lost() {
    this.said("lost");
    if (this.failures < RETRY_SECONDS.length) this.later(RETRY_SECONDS[this.failures]);
    this.failures += 1;
  }

  later(seconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.timer = null;
      this.load();
    }, 1000 * seconds);
  }
}
