#!/usr/bin/env bash
# The reports of the shipped bundles in docs/reports: default_reports.sh WORK SPEECH_DEV PIANO_DEV [MANIFEST] (about half an hour of a core a bundle).
#
# SPEECH_DEV and PIANO_DEV are held-out corpora as `audiolm train prepare` writes them, MANIFEST the table with the texts of the speech; its rows with
# tier=A are read. With HOUR=1 free running is not measured but taken from an hour of it, WORK/hour_speech and WORK/hour_piano, as made by
#   audiolm eval drift piano --data PIANO_DEV=music --minutes 60 --out WORK/hour_piano
# AUDIOLM is the command (.venv/bin/audiolm), DOCS another folder than docs/reports, OPTIONS more of `eval all`, such as --quick for a trial.
# The pages that are kept play nothing: the recordings stay where they are. WORK/NAME/report.html has the sounds.
# A call after an interruption goes on where it was. What cannot be taken is told in the report, and at the end.
set -uo pipefail
cd "$(dirname "$0")/.."
work="$1" speech="$2" piano="$3" manifest="${4:-}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
docs="${DOCS:-docs/reports}"
read -ra audiolm <<<"${AUDIOLM:-.venv/bin/audiolm}"
read -ra options <<<"${OPTIONS:-}"
if [ -n "${HOUR:-}" ]; then options+=(--without drift); fi

report() { # name, data, further options of eval all
    local name="$1" data="$2" out="$work/$1" hour="$work/hour_$1" failed=0
    shift 2
    "${audiolm[@]}" eval all "$name" --data "$data" --out "$out" --jobs 1 "${options[@]}" "$@" || failed=1
    if [ -n "${HOUR:-}" ]; then
        "${audiolm[@]}" eval remake "$hour" >/dev/null || failed=1
        "${audiolm[@]}" eval join "$out" "$hour" --section drift || failed=1
    fi
    "${audiolm[@]}" eval page "$out" --no-sounds --to "$docs/$name" || failed=1
    return "$failed"
}
words=()
if [ -n "$manifest" ]; then words=(--manifest "$manifest" --where tier=A); fi
report piano "$piano=music" &
first=$!
report speech "$speech=speech" "${words[@]}"
second=$?
wait "$first" && exit "$second"
