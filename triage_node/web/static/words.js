// Numbers and times in words, and elements whose text is always text.

/** An element; children that are strings become text nodes, so nothing from a DICOM header can become markup. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Set text only where it differs: nothing is laid out again for nothing. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function percent(fraction) {
  if (fraction === null || fraction === undefined) return "–";
  if (fraction > 0 && fraction < 0.01) return "<1%";
  return `${Math.round(fraction * 100)}%`;
}

export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, "0")}`;
  return `${Math.floor(s / 86400)} days`;
}

/** DICOM DA as ISO 8601; anything else as it is. */
export function studyDate(text) {
  return /^\d{8}$/.test(text) ? `${text.slice(0, 4)}-${text.slice(4, 6)}-${text.slice(6)}` : text;
}

/** Time of day on this workstation's clock, with the date unless it is today's. */
export function clock(at) {
  if (at === null || at === undefined) return "–";
  const date = at instanceof Date ? at : new Date(at);
  const time = date.toLocaleTimeString("en-GB");
  if (date.toDateString() === new Date().toDateString()) return time;
  const day = [date.getFullYear(), date.getMonth() + 1, date.getDate()].map((n) => String(n).padStart(2, "0"));
  return `${day.join("-")} ${time}`;
}

export function ml(value) {
  if (value === null || value === undefined) return "–";
  return value > 0 && value < 0.5 ? "<1 ml" : `${Math.round(value).toLocaleString("en-GB")} ml`;
}

export function places(count) {
  return count === 1 ? "1 place" : `${count} places`;
}

export const STATES = {
  waiting: "waiting for analysis",
  judged: "judged",
  not_analysed: "not analysed",
  reading: "being read",
  read: "read",
  cancelled: "reading called off",
};

/** What people call a study: its accession number, or that it has none. */
export function nameOf(study) {
  return study.accession_number || "no accession number";
}

export function studyAddress(uid) {
  return `/studies/${encodeURIComponent(uid)}`;
}

export function overviewAddress(uid, generation) {
  return `${studyAddress(uid)}/overview.png?generation=${generation}`;
}

export function thumbnailAddress(uid, generation, width) {
  return `${studyAddress(uid)}/overview.png?part=frontal&width=${width}&generation=${generation}`;
}

/** MEDIUM because nothing is known of it: neither a result nor an order says so. */
export function isByDefault(study) {
  return !isJudged(study) && !study.order_priority;
}

/** Whether the study's numbers are an answer of the method, and not the absence of one. */
export function isJudged(study) {
  return study.ct_grade !== null;
}

export function probabilityWords(study) {
  if (!isJudged(study)) return "–";
  const value = study.covid_probability;
  if (value === null) return "not provided";
  return value < 0.01 ? "<0.01" : value > 0.99 ? ">0.99" : value.toFixed(2); // judged is never impossible or certain
}

/** Ground glass and consolidation as shares of the lesion; null where there is no lesion, or none was looked for. */
export function mixShares(study) {
  return study.consolidation_share === null ? null : [1 - study.consolidation_share, study.consolidation_share];
}

export function mixWords(study) {
  const shares = mixShares(study);
  if (shares === null) return isJudged(study) ? "no lesion" : "–";
  return `ground glass ${percent(shares[0])}, consolidation ${percent(shares[1])}`;
}
