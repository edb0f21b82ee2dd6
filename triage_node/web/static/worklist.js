// The list: only the rows on screen exist, each keyed by its study and placed by a transform that moves smoothly.

import { Panel } from "./panel.js";
import { Row } from "./row.js";
import { el, nameOf, studyAddress, write } from "./words.js";

const SPARE_ROWS = 6; // above and below the screen
const MOVE_MS = 600; // longer than the transition in page.css
const HIGHLIGHT_MS = 4_000;
const SPOKEN_AT_MOST = 3;
const ORDER_KEPT = "order"; // for as long as the browser's tab is open

export class Worklist {
  constructor(stream, listing, filters, claims) {
    this.stream = stream;
    this.listing = listing;
    this.filters = filters;
    this.claims = claims;
    this.order = []; // UIDs as they are shown
    this.indexes = new Map(); // UID -> index in `order`
    this.rows = new Map(); // UID -> Row on screen
    this.selected = decodeURIComponent(location.hash.slice(1)) || null;
    this.triaged = sessionStorage.getItem(ORDER_KEPT) !== "arrival";
    for (const name of ["worklist", "grid", "scroll", "head", "rows", "empty", "matches", "announcement", "triaged", "arrival"]) {
      this[`$${name}`] = document.getElementById(name);
    }
    this.$rules = document.getElementById("rules-short");
    this.panel = new Panel(document.getElementById("panel"), claims);
    this.$worklist.hidden = false;
    document.body.classList.add("whole-screen");
    this.$scroll.addEventListener("scroll", () => this.#later(), { passive: true });
    new ResizeObserver(() => this.#measure()).observe(this.$scroll);
    this.$rows.addEventListener("click", (event) => this.#clicked(event));
    this.$rows.addEventListener("dblclick", (event) => this.#clicked(event) && this.open());
    this.$rows.addEventListener("focusin", (event) => this.#focused(event));
    this.$triaged.addEventListener("click", () => this.setOrder(true));
    this.$arrival.addEventListener("click", () => this.setOrder(false));
    filters.addEventListener("filter", () => this.#filtered());
    listing.addEventListener("list", (event) => this.#arrived(event.detail));
    claims.who.addEventListener("known", () => this.#filtered());
    setInterval(() => this.#tick(), 1000);
    this.#showOrder();
    this.#measure();
  }

  /** The study that the keys speak of. */
  get study() {
    return this.listing.byUid.get(this.selected) ?? null;
  }

  // ---- what came from the node

  #arrived({ changes, first }) {
    const { status, byUid } = this.listing;
    this.filters.maximum_min = status.max_wait_min;
    const worth = changes.filter(({ study, old }) => hasChanged(old, study));
    this.#arrange({ animate: !first });
    if (this.selected === null || !byUid.has(this.selected)) this.select(this.order[0] ?? null, { look: false });
    else this.panel.show(this.study);
    if (first) this.#reveal();
    for (const { study } of worth) this.#highlight(study.study_instance_uid);
    this.#announce(worth);
    write(this.$rules, `${status.strategy} · nobody waits over ${status.max_wait_min} min because of others`);
  }

  #announce(changes) {
    if (changes.length === 0) return;
    const sentences = changes.slice(0, SPOKEN_AT_MOST).map(({ study, old }) => {
      const name = `Study ${nameOf(study)}`;
      if (old === null) return `${name} is new, at place ${study.rank}.`;
      const what = old.state !== study.state ? ` is ${study.state.replace("_", " ")} and` : "";
      if (old.rank === study.rank) return `${name}${what} stays at place ${study.rank}.`;
      return `${name}${what} moved from ${old.rank} to ${study.rank}.`;
    });
    if (changes.length > SPOKEN_AT_MOST) sentences.push(`${changes.length - SPOKEN_AT_MOST} more studies changed.`);
    write(this.$announcement, sentences.join(" "));
  }

  #emptiness() {
    this.$empty.hidden = this.order.length > 0;
    this.$grid.hidden = this.order.length === 0;
    if (this.order.length > 0) return;
    const { ae_title: title, intake: { host, port } } = this.listing.status;
    const lines = this.filters.active
      ? [el("h2", {}, "No study matches the filters"), el("p", {}, "Press ", el("kbd", {}, "x"), " to see all studies.")]
      : [
          el("h2", {}, "No study has arrived yet"),
          el("p", {}, "Send a chest CT by C-STORE to ", el("code", {}, `${title}@${host}:${port}`), "."),
          el("p", {}, "With DCMTK: ", el("code", {}, `storescu -aec ${title} +sd +r ${host} ${port} FOLDER`)),
          el("p", {}, "It will appear here by itself, and move to its place when it is judged."),
        ];
    this.$empty.replaceChildren(...lines);
  }

  // ---- order, filters, selection

  #arrange({ animate }) {
    const { byUid, order, arrival } = this.listing;
    const all = this.triaged ? order : arrival;
    this.order = this.filters.active ? all.filter((uid) => this.filters.shows(byUid.get(uid))) : all;
    this.indexes = new Map(this.order.map((uid, index) => [uid, index]));
    this.filters.count(byUid.values());
    this.$grid.setAttribute("aria-rowcount", String(this.order.length + 1));
    write(this.$matches, this.filters.active ? `${this.order.length.toLocaleString("en-GB")} of ${byUid.size.toLocaleString("en-GB")} shown` : "");
    this.#emptiness();
    this.#draw({ animate });
  }

  toggleOrder() {
    this.setOrder(!this.triaged);
  }

  setOrder(triaged) {
    this.triaged = triaged;
    sessionStorage.setItem(ORDER_KEPT, triaged ? "triaged" : "arrival");
    this.#showOrder();
    write(this.$announcement, triaged ? "Triaged order." : "Order of arrival.");
    if (!this.listing.ready) return;
    this.#arrange({ animate: true });
    this.#reveal();
  }

  #showOrder() {
    this.$triaged.setAttribute("aria-pressed", String(this.triaged));
    this.$arrival.setAttribute("aria-pressed", String(!this.triaged));
    this.$worklist.classList.toggle("by-arrival", !this.triaged);
  }

  #filtered() {
    if (!this.listing.ready) return;
    this.#arrange({ animate: false });
    if (!this.indexes.has(this.selected)) this.select(this.order[0] ?? null, { look: false });
    else this.panel.show(this.study);
    this.#reveal();
  }

  /** Out of the filter's field, back to the list. */
  leaveFilter() {
    if (this.selected !== null) this.select(this.selected, { focus: true });
    else this.$scroll.focus();
  }

  select(uid, { focus = false, look = true } = {}) {
    const old = this.rows.get(this.selected);
    this.selected = uid;
    if (old) this.#mark(old);
    if (look) history.replaceState(null, "", uid ? `#${encodeURIComponent(uid)}` : location.pathname);
    if (look) this.#reveal();
    const row = this.rows.get(uid);
    if (row) {
      this.#mark(row);
      if (focus) row.element.focus({ preventScroll: true });
    }
    this.panel.show(this.study);
  }

  /** Move the selection by `step` rows, or to an end with an infinite one. */
  move(step) {
    if (this.order.length === 0) return;
    const at = this.indexes.get(this.selected) ?? -1;
    const next = at < 0 ? 0 : Math.max(0, Math.min(this.order.length - 1, at + step));
    this.select(this.order[next], { focus: true });
  }

  get screenful() {
    return Math.max(1, Math.floor(this.height / this.rowHeight) - 1);
  }

  open() {
    if (this.selected !== null) location.assign(studyAddress(this.selected));
  }

  #clicked(event) {
    const element = event.target.closest(".row");
    if (!element) return false;
    this.select(element.dataset.uid, { focus: true });
    return true;
  }

  #focused(event) {
    const uid = event.target.closest(".row")?.dataset.uid;
    if (uid && uid !== this.selected) this.select(uid);
  }

  // ---- drawing

  #measure() {
    this.height = this.$scroll.clientHeight - this.$head.offsetHeight; // the head stays on top
    this.rowHeight = parseFloat(getComputedStyle(this.$grid).getPropertyValue("--row-height")) || 84;
    this.#draw({ animate: false });
  }

  #later() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.#draw({ animate: false });
    });
  }

  /** Scroll the selected row into view. */
  #reveal() {
    const index = this.indexes.get(this.selected);
    if (index === undefined) return;
    const top = index * this.rowHeight;
    const { scrollTop } = this.$scroll;
    if (top < scrollTop) this.$scroll.scrollTop = top;
    else if (top + this.rowHeight > scrollTop + this.height) this.$scroll.scrollTop = top + this.rowHeight - this.height;
    this.#draw({ animate: false });
  }

  #draw({ animate }) {
    this.$rows.style.height = `${this.order.length * this.rowHeight}px`;
    const first = Math.max(0, Math.floor(this.$scroll.scrollTop / this.rowHeight) - SPARE_ROWS);
    const last = Math.min(this.order.length - 1, first + Math.ceil(this.height / this.rowHeight) + 2 * SPARE_ROWS);
    const wanted = new Map();
    for (let index = first; index <= last; index += 1) wanted.set(this.order[index], index);
    // the selected row keeps the keyboard's focus, and a row that leaves the screen is seen leaving
    for (const [uid, row] of this.rows) {
      if (wanted.has(uid)) continue;
      const index = this.indexes.get(uid);
      const kept = index !== undefined && (uid === this.selected || row.moving || (animate && row.index !== index));
      if (kept) wanted.set(uid, index);
      else this.#remove(row);
    }
    for (const [uid, index] of wanted) this.#place(uid, index, animate);
  }

  #place(uid, index, animate) {
    const study = this.listing.byUid.get(uid);
    let row = this.rows.get(uid);
    if (row === undefined) {
      row = new Row(uid);
      this.rows.set(uid, row);
      this.#put(row, index);
      this.$rows.append(row.element);
    } else if (row.index !== index) {
      row.element.classList.toggle("still", !animate);
      if (animate) this.#keepWhileMoving(row);
      this.#put(row, index);
    }
    row.element.setAttribute("aria-rowindex", String(index + 2));
    row.update(study, this.triaged ? study.rank : study.arrival_rank, this.claims.who.name);
    row.tick(this.stream.now(), this.listing.status.max_wait_min);
    this.#mark(row);
  }

  #put(row, index) {
    row.index = index;
    row.element.style.transform = `translateY(${index * this.rowHeight}px)`;
  }

  #keepWhileMoving(row) {
    clearTimeout(row.moving);
    row.moving = setTimeout(() => {
      row.moving = null;
      this.#later();
    }, MOVE_MS);
  }

  #remove(row) {
    clearTimeout(row.moving);
    this.rows.delete(row.uid);
    row.element.remove();
  }

  #mark(row) {
    const selected = row.uid === this.selected;
    row.element.setAttribute("aria-selected", String(selected));
    row.element.tabIndex = selected ? 0 : -1;
  }

  #highlight(uid) {
    const row = this.rows.get(uid);
    if (row === undefined) return;
    row.element.classList.add("moved");
    clearTimeout(row.highlight);
    row.highlight = setTimeout(() => row.element.classList.remove("moved"), HIGHLIGHT_MS);
  }

  #tick() {
    if (!this.listing.ready || document.hidden) return;
    for (const row of this.rows.values()) row.tick(this.stream.now(), this.listing.status.max_wait_min);
  }
}

/** A study that is new or was judged anew, or moved by more than the one place that another's passing makes. */
function hasChanged(old, study) {
  if (old === null) return true;
  return old.state !== study.state || old.generation !== study.generation || Math.abs(old.rank - study.rank) > 1;
}
