// What the node did with a study, as tables: series, delivery ledger, timeline.

import { clock, duration, el } from "./words.js";

function table(headings, rows, nothing) {
  if (rows.length === 0) return el("p", { class: "sub" }, nothing);
  return el("div", { class: "wide" }, el("table", { class: "ledger" },
    el("thead", {}, el("tr", {}, ...headings.map((heading) => el("th", { scope: "col" }, heading)))),
    el("tbody", {}, ...rows)));
}

function row(attributes, ...cells) {
  return el("tr", attributes, ...cells.map((cell) => el("td", {}, ...[cell].flat())));
}

/** Each series: whether it was judged, why not, and on what evidence it counts as complete. */
export function seriesTable(report) {
  const rows = report.series.map((series) => row(
    { class: series.judged ? "chosen" : null },
    [el("b", {}, series.judged ? "judged" : series.refusal ? "passed over" : series.state === "open" ? "arriving" : "–")],
    [el("span", { class: "dicom" }, `${series.modality} ${series.description || "no description"}`), el("small", { class: "uid" }, series.series_instance_uid)],
    String(series.instances),
    series.refusal
      ? [el("span", { class: "dicom" }, series.refusal.words), el("small", {}, series.refusal.reason)]
      : series.judged ? "preferred by the selection rule" : "–",
    series.basis === null
      ? "still open"
      : [el("span", {}, series.evidence.join("; ")), el("small", {}, `${series.basis}, closed ${clock(series.closed_at)}, ${series.generation === 1 ? "once" : `${series.generation} times`}`)],
  ));
  return table(["", "Series", "Images", "Why", "On what evidence it counts as complete"], rows, "No series is known.");
}

/** Every object of every answer, where it was sent and what was answered. */
export function deliveryTable(report) {
  const rows = report.objects.map((object) => row(
    { class: object.current ? null : "old" },
    [el("b", {}, object.kind), el("small", { class: "uid" }, object.sop_instance_uid)],
    object.current ? String(object.generation) : `${object.generation} (superseded)`,
    object.destination ?? "sent nowhere",
    [el("b", { class: ["refused", "given up"].includes(object.state) ? "bad" : null }, object.state ?? "–"),
      ...proofWords(object).map((words) => el("small", {}, words))],
    object.deliveries.length === 0 ? "–" : [el("ul", {}, ...object.deliveries.map((delivery) => el("li", {}, attemptWords(delivery))))],
  ));
  return table(["Object", "Answer", "Destination", "State", "What was asked and answered"], rows, "No object has been made yet.");
}

/** Every message about an answer to another system, and what was acknowledged; nothing where no such system is set up. */
export function messagesTable(report) {
  if (report.messages.length === 0) return [];
  const rows = report.messages.map((message) => row(
    { class: message.current ? null : "old" },
    [el("b", {}, message.kind)],
    message.current ? String(message.generation) : `${message.generation} (superseded)`,
    message.destination,
    [el("b", { class: ["refused", "given up"].includes(message.state) ? "bad" : null }, message.state),
      ...[message.acknowledged_at ? `acknowledged ${clock(message.acknowledged_at)}` : null,
        message.next_at ? `next attempt ${clock(message.next_at)}` : null].filter(Boolean).map((words) => el("small", {}, words))],
    message.deliveries.length === 0 ? "–" : [el("ul", {}, ...message.deliveries.map((delivery) => el("li", {}, attemptWords({ ...delivery, status: null, state: [delivery.state, delivery.code].filter(Boolean).join(" ") }))))],
  ));
  const headings = ["Message", "Answer", "Receiver", "State", "What was sent and answered"];
  return [el("h3", {}, "Messages to other systems"), table(headings, rows, "")];
}

/** How far the destination has vouched for an object, a line each. */
function proofWords(object) {
  const steps = [["stored", object.stored_at], ["committed", object.committed_at], ["confirmed", object.confirmed_at]];
  return [
    ...steps.filter(([, at]) => at !== null).map(([step, at]) => `${step} ${clock(at)}`),
    object.awaiting.length ? `awaiting ${object.awaiting.join(" and ")}` : null,
    object.resends ? `sent again ${object.resends === 1 ? "once" : `${object.resends} times`}` : null,
    object.next_at ? `next attempt ${clock(object.next_at)}` : null,
  ].filter(Boolean);
}

function attemptWords(delivery) {
  const status = delivery.status === null ? "" : ` 0x${delivery.status.toString(16).toUpperCase().padStart(4, "0")}`;
  return `${clock(delivery.at)} ${delivery.state}${status}${delivery.words ? `: ${delivery.words}` : ""}`;
}

/** What happened to the study, and how long after its first image. */
export function eventsTable(report) {
  const start = report.events.length ? Date.parse(report.events[0].at) : 0;
  const rows = report.events.map((event) => row(
    {},
    [el("span", {}, clock(event.at)), el("small", {}, `+${sinceWords((Date.parse(event.at) - start) / 1000)}`)],
    event.process,
    [el("b", {}, event.event)],
    [el("span", { class: "dicom detail" }, detailWords(event.detail))],
  ));
  return table(["When", "Process", "Event", "Detail"], rows, "Nothing has happened yet.");
}

function sinceWords(seconds) {
  return seconds < 60 ? `${seconds.toFixed(1)} s` : duration(seconds);
}

function detailWords(detail) {
  return Object.entries(detail)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => `${name}: ${Array.isArray(value) ? value.join("; ") : value}`)
    .join(" · ");
}
