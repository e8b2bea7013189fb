// What the page knows of the run: a copy of the coordinator's history, kept up to date by its end.

const MAX_EVENTS = 500;

export class Model {
  constructor() {
    this.clear();
  }

  clear() {
    this.id = "";
    this.facts = null;
    this.outcome = this.ended = null;
    this.stride = 1;
    this.ahead = 0;
    this.now = { alarms: [], stages: {} };
    this.events = [];
    this.steps = [];
    this.times = [];
    this.columns = new Map();
  }

  /** Take in a document of the server: the whole history, or its end, which replaces what was known of that. */
  take(news, whole = false) {
    if (whole) this.clear();
    this.id = news.id;
    this.facts = news.facts ?? this.facts;
    this.outcome = news.outcome;
    this.ended = news.ended;
    this.stride = news.stride;
    this.ahead = Date.now() / 1000 - news.clock;
    this.now = news.now;
    this.events = this.events.concat(news.events).slice(-MAX_EVENTS);
    const start = news.start;
    const known = start + news.steps.length;
    this.steps = this.steps.slice(0, start).concat(news.steps);
    this.times = this.times.slice(0, start).concat(news.times);
    for (const [stage, columns] of Object.entries(news.columns)) {
      for (const [name, values] of Object.entries(columns)) {
        const key = `${stage}/${name}`;
        const before = (this.columns.get(key) ?? []).slice(0, start);
        while (before.length < start) before.push(null);
        this.columns.set(key, before.concat(values));
      }
    }
    for (const values of this.columns.values()) while (values.length < known) values.push(null);
  }

  /** Means over each bucket of steps, as long as `steps`; null where there is no such series. Stage 0 is the run. */
  column(stage, name) {
    return this.columns.get(`${stage}/${name}`) ?? null;
  }

  /** Numbers of the stages. */
  get stages() {
    return Array.from({ length: this.facts?.stages ?? 0 }, (_, index) => index + 1);
  }

  /** Names of the series of any stage that begin with `prefix`, without it, in order. */
  names(prefix) {
    const found = new Set();
    for (const key of this.columns.keys()) {
      const name = key.slice(key.indexOf("/") + 1);
      if (name.startsWith(prefix)) found.add(name.slice(prefix.length));
    }
    return [...found].sort();
  }

  /** Whether any of `stages` has anything to show under `name`. */
  has(name, stages = this.stages) {
    return stages.some((stage) => this.column(stage, name)?.some((value) => value !== null));
  }

  /** A setting by its dotted path, undefined if there is none. */
  setting(path) {
    return path.split(".").reduce((value, key) => value?.[key], this.facts?.config);
  }

  /** Seconds since `time` of the coordinator, whose clock is not the browser's. */
  since(time) {
    return Math.max(Date.now() / 1000 - this.ahead - time, 0);
  }

  /** Whether all steps are done, and the final weights and probes follow. */
  get finishing() {
    return this.outcome === null && this.facts !== null && (this.now.step ?? -1) + 1 >= this.facts.total_steps;
  }

  /** Whether `stage` is trained by the process of the one before it, so that nothing travels between them. */
  sharesProcess(stage) {
    if (stage === 1) return false;
    const all = this.facts.stages;
    const processes = this.oneProcess ? 1 : (this.setting("processes") ?? all);
    const last = Array.from({ length: processes }, (_, index) => Math.floor((index * all) / processes));
    return !last.includes(stage - 1);
  }

  get oneProcess() {
    return this.setting("runtime") === "serial" || this.setting("mode") === "end_to_end";
  }
}
