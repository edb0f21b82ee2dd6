// The list as this page knows it: the node sends it once, and from then on what changes.

export class Listing extends EventTarget {
  /**
   * Emits "list" once status and studies are there and after every change; detail: `first`, and `changes`, an array of
   * { study, old } for the studies that are new, different or were moved; `old` is null for a new one, or tells its
   * state, generation and rank before.
   */
  constructor(stream) {
    super();
    this.stream = stream;
    this.status = null;
    this.version = null;
    this.byUid = new Map(); // study instance UID -> study
    this.order = []; // UIDs in reading order
    this.arrival = []; // and without triage
    this.fields = null;
    stream.addEventListener("status", (event) => this.#hear({ status: event.detail }));
    stream.addEventListener("list", (event) => this.#replace(event.detail));
    stream.addEventListener("change", (event) => this.#change(event.detail));
  }

  get ready() {
    return this.status !== null && this.fields !== null;
  }

  #hear({ status }) {
    this.status = status;
    if (this.fields !== null) this.#tell([], false);
  }

  #study(values) {
    const study = {};
    this.fields.forEach((name, index) => { study[name] = values[index]; });
    return study;
  }

  #replace({ version, fields, studies, arrival }) {
    const before = this.byUid;
    const first = this.fields === null;
    this.version = version;
    this.fields = fields;
    const found = studies.map((values) => this.#study(values));
    this.byUid = new Map(found.map((study) => [study.study_instance_uid, study]));
    this.order = found.map((study) => study.study_instance_uid);
    this.arrival = arrival.map((index) => this.order[index]);
    this.#count();
    const changes = first ? [] : found
      .map((study) => ({ study, old: glance(before.get(study.study_instance_uid)) }))
      .filter(({ study, old }) => old === null || old.state !== study.state || old.generation !== study.generation || old.rank !== study.rank);
    this.#tell(changes, first);
  }

  #change({ version, changed, gone, moved, moved_by_arrival: movedByArrival }) {
    const old = new Map();
    const remember = (uid) => old.has(uid) || old.set(uid, glance(this.byUid.get(uid)));
    this.version = version;
    for (const values of changed) {
      const study = this.#study(values);
      remember(study.study_instance_uid);
      this.byUid.set(study.study_instance_uid, study);
    }
    for (const [uid] of moved) remember(uid);
    for (const uid of gone) {
      this.byUid.delete(uid);
      old.delete(uid);
    }
    this.order = arranged(this.order, gone, moved);
    this.arrival = arranged(this.arrival, gone, movedByArrival);
    this.#count();
    this.#tell([...old].map(([uid, before]) => ({ study: this.byUid.get(uid), old: before })), false);
  }

  #count() {
    this.order.forEach((uid, index) => { this.byUid.get(uid).rank = index + 1; });
    this.arrival.forEach((uid, index) => { this.byUid.get(uid).arrival_rank = index + 1; });
  }

  #tell(changes, first) {
    if (this.ready) this.dispatchEvent(new CustomEvent("list", { detail: { changes, first } }));
  }
}

function glance(study) {
  return study === undefined ? null : { state: study.state, generation: study.generation, rank: study.rank };
}

/** `order` without those gone, and those that moved at their new places, which are given from the front. */
function arranged(order, gone, moved) {
  if (gone.length === 0 && moved.length === 0) return order;
  const out = new Set([...gone, ...moved.map(([uid]) => uid)]);
  const staying = order.filter((uid) => !out.has(uid));
  const result = [];
  let next = 0;
  for (const [uid, index] of moved) {
    while (result.length < index) result.push(staying[next++]);
    result.push(uid);
  }
  while (next < staying.length) result.push(staying[next++]);
  return result;
}
