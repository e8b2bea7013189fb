// The line to the coordinator: everything once, then news as it comes; quiet when the run has ended or is out of reach.

const RETRY_SECONDS = [1, 3, 10, 30, 60, 120];
const STARTING_SECONDS = 1;
const CROWDED_SECONDS = 15;
const SILENT_MS = 15000; // the server says something every 5 s

export class Connection {
  /** `took` is called after the model has changed, `said` with the state of the line: starting, live, ended or lost. */
  constructor(model, took, said) {
    Object.assign(this, { model, took, said, source: null, timer: null, watch: null, failures: 0, turn: 0 });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.failures > 0) this.again();
    });
  }

  /** Begin anew, at once. */
  again() {
    this.stop();
    this.load();
  }

  stop() {
    clearTimeout(this.timer);
    clearTimeout(this.watch);
    this.timer = this.watch = null;
    this.source?.close();
    this.source = null;
  }

  async load() {
    const turn = (this.turn += 1);
    let all = null;
    try {
      const answer = await fetch("history.json", { cache: "no-store", signal: AbortSignal.timeout(SILENT_MS) });
      if (answer.ok) all = await answer.json();
    } catch {
      // Nobody is there; what follows is the same as for an answer that is none.
    }
    if (turn !== this.turn) return; // somebody has asked again meanwhile
    if (all === null) {
      this.lost();
    } else if (all.facts === null) {
      this.failures = 0;
      this.said("starting");
      this.later(STARTING_SECONDS);
    } else {
      this.model.take(all, true);
      this.took();
      this.said("live");
      if (this.model.outcome !== null) this.ended();
      else this.follow();
    }
  }

  follow() {
    this.stop();
    const source = (this.source = new EventSource(`events?after=${encodeURIComponent(this.model.id)}`));
    let answered = false;
    const hear = (kind, listener) =>
      source.addEventListener(kind, (message) => {
        answered = true;
        this.heard();
        listener(message);
      });
    hear("update", (message) => {
      this.model.take(JSON.parse(message.data));
      this.took();
      this.said("live");
    });
    hear("beat", () => {});
    hear("reset", () => this.again());
    hear("end", () => this.ended());
    source.addEventListener("error", () => {
      this.stop();
      if (answered) this.lost();
      else this.later(CROWDED_SECONDS); // too many pages are open: this one asks for everything now and then
    });
    this.expect();
  }

  heard() {
    this.failures = 0;
    this.expect();
  }

  /** A server that says nothing is stopped, or the line is cut; the browser would wait for ever. */
  expect() {
    clearTimeout(this.watch);
    this.watch = setTimeout(() => {
      this.stop();
      this.lost();
    }, SILENT_MS);
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
