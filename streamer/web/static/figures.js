// The figures that the page shows: what server, connection, play-out and picture each know, put together. Pure.

import { RATE } from "./frames.js";

const TICK_MS = 40;

/** `ours` is the time from a turn's first frame to its sounding. Times are in ms, null where unknown. */
export function figures({ state, link, status, report, ours, picture }) {
  const theirs = status.decision_to_sound_ms; // from the decision to the first frame sent
  const ticks = link.dropped + (status.dropped_in ?? 0) + (status.dropped_out ?? 0);
  return {
    state,
    trip: link.roundTrip,
    buffer: (1000 * report.level) / RATE,
    prime: (1000 * report.prime) / RATE,
    underruns: report.underruns,
    dropped: TICK_MS * ticks + (1000 * report.lost) / RATE,
    rtf: status.rtf,
    visitors: status.sessions,
    limit: status.limit,
    sound: ours == null || theirs == null ? null : theirs + ours + (link.roundTrip ?? 0) / 2,
    picture,
    refused: link.refused,
    position: link.position,
  };
}
