"""The steps from a folder of sound to a bundle: what each one reads, makes and is decided by.

Files of a work folder, by step::

    prepare    corpus/{train,dev}, corpus/report.json
    codec      codec.safetensors, codec.jsonl
    encoder    encoder.safetensors, encoder_heads.safetensors, encoder.jsonl
    ears       ears/, sweep.json, sweep.md, sweep.png, phones.json   codec and tokenizer as they will ship
    tokenize   tokens/{train,dev}.safetensors
    semantic, coarse, fine                            NAME.safetensors, NAME.jsonl
    measure    draft/                                 the bundle without its card
    export     the bundle
"""

import dataclasses
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiolm.bundle import load_bundle
from audiolm.parts import STAGES, Parts
from audiolm.train.codec import CodecRecipe
from audiolm.train.job import SPLITS, Job, fingerprint, is_prepared
from audiolm.train.journal import duration
from audiolm.train.recipe import Record, Step, digest, plain
from audiolm.train.semantic import SemanticRecipe
from audiolm.train.stages import StageRecipe
from audiolm.train.tokens import Tokens

if TYPE_CHECKING:
    from audiolm.train.card import Runs

EVERY = 20.0  # seconds between lines of the log
logger = logging.getLogger("audiolm.train")


def steps(job: Job) -> list[Step]:
    """All steps of a job, in order."""
    return [_prepare(job), _codec(job), _encoder(job), _ears(job), _tokenize(job), *_stages(job), *_ends(job)]


def _prepare(job: Job) -> Step:
    def run(_: bool) -> Mapping[str, Any]:
        from audiolm.train.prepare import prepare_data

        if is_prepared(job.data):
            return _as_it_is(job)
        made = prepare_data(job.data, job.work / "corpus", job.preset.prepare, _progress())
        for line in made.summary.splitlines():
            logger.info("  %s", line)
        kept = {key: value for key, value in made.report.items() if key != "refused"}
        return kept | {"summary": made.summary}

    made = tuple(job.corpora / split for split in SPLITS)
    settings = {"prepare": plain(job.preset.prepare), "files": fingerprint(job)}
    return Step("prepare", f"read, check and split the sound of {job.data}", settings, run, makes=made)


def _progress() -> Callable[[int, int], None]:
    """A line about the files every 20 s."""
    begin = said = time.monotonic()

    def say(done: int, count: int) -> None:
        nonlocal said
        if time.monotonic() - said > EVERY:
            said = time.monotonic()
            left = (said - begin) / done * (count - done)
            logger.info("prepare: %d of %d files, %s left", done, count, duration(left))

    return say


def _as_it_is(job: Job) -> dict[str, Any]:
    """What can be said of corpora that were prepared elsewhere."""
    splits = {split: job.corpus(split) for split in SPLITS}
    rows = {name: {"clips": len(each.names), "hours": round(each.seconds / 3600, 4)} for name, each in splits.items()}
    lines = [f"{name}: {row['clips']} clips, {row['hours']:.2f} h" for name, row in rows.items()]
    return {"splits": rows, "summary": "\n".join(["prepared before", *lines])}


def _codec(job: Job) -> Step:
    plan, path = job.preset.codec, job.work / "codec.safetensors"

    def run(fresh: bool) -> Mapping[str, Any]:
        from audiolm.train.codec import train_codec

        sound = [(job.corpus("train"), 1.0)]
        train_codec(sound, job.work, plan.model, plan.recipe, **job.going_on(fresh=fresh))
        return {}

    title = f"codec, {plan.model.levels} levels of {plan.model.cardinality} codes"
    return Step("codec", title, {"codec": plain(plan)}, run, ("prepare",), (path,), _minutes(plan.recipe), shared=True)


def _encoder(job: Job) -> Step:
    plan, path = job.preset.semantic, job.work / "encoder.safetensors"

    def run(fresh: bool) -> Mapping[str, Any]:
        from audiolm.train.semantic import train_semantic

        sound = [(job.corpus("train"), 1.0)]
        train_semantic(sound, job.work, plan.model, plan.recipe, **job.going_on(fresh=fresh))
        return {}

    # Neither layer nor clusters decide how the encoder is trained.
    model = {k: v for k, v in plain(plan.model).items() if k not in ("layer", "clusters", "components")}
    settings = {"model": model, "recipe": plain(plan.recipe)}
    title = f"semantic encoder, {plan.model.layers} x {plan.model.width}"
    return Step("encoder", title, settings, run, ("prepare",), (path,), _minutes(plan.recipe), shared=True)


def _ears(job: Job) -> Step:
    plan = job.preset.semantic

    def run(_: bool) -> Mapping[str, Any]:
        from audiolm.train.ears import find_phones, make_ears

        train, dev = job.corpus("train"), job.corpus("dev")
        phones = find_phones(job.phones, job.data, dev, job.work, align=plan.sweep.align)
        return make_ears(job.preset, job.work, train, dev, phones)

    settings = {"model": plain(plan.model), "sweep": plain(plan.sweep), "dtypes": _dtypes(job)}
    if job.phones is not None:
        settings["phones"] = digest(job.phones.read_text(encoding="utf8") if job.phones.is_file() else "")
    title = "layer and clusters; codec and tokenizer as they ship"
    return Step("ears", title, settings, run, ("prepare", "codec", "encoder"), (job.ears,))


def _minutes(recipe: CodecRecipe | SemanticRecipe | StageRecipe) -> float:
    """How long a run is; not known when its steps are counted."""
    return recipe.minutes if recipe.steps is None else 0.0


def _dtypes(job: Job) -> dict[str, str]:
    return dataclasses.asdict(job.preset.export.dtypes)


def _tokenize(job: Job) -> Step:
    paths = {split: job.work / "tokens" / f"{split}.safetensors" for split in SPLITS}

    def run(fresh: bool) -> Mapping[str, Any]:
        from audiolm.train.tokenizing import tokenize_corpus

        parts, hours = load_bundle(job.ears), {}
        for split, path in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            tokens = tokenize_corpus(parts, job.corpus(split), path, fresh=fresh)
            hours[split] = round(tokens.ticks / 25 / 3600, 4)
        return {"hours": hours}

    return Step("tokenize", "the corpus as tokens", {}, run, ("prepare", "ears"), tuple(paths.values()))


def _stages(job: Job) -> list[Step]:
    return [_stage(job, name) for name in STAGES]


def _stage(job: Job, name: str) -> Step:
    plan, path = job.preset.plan(name), job.work / f"{name}.safetensors"

    def run(fresh: bool) -> Mapping[str, Any]:
        from audiolm.train.stages import train_stage

        spec, train, dev = load_bundle(job.ears).stages[name].spec, job.tokens("train"), job.tokens("dev")
        crop = fitting_crop(plan.recipe.crop, spec.ahead, train, dev)
        if crop < plan.recipe.crop:
            text = "%s: no clip is %.1f s long; crops are %.1f s (windows are %.1f s)"
            logger.info(text, name, plan.recipe.crop, crop, spec.window / spec.rate)
        recipe = dataclasses.replace(plan.recipe, crop=crop)
        levels, how = job.preset.codec.model.coarse_levels, job.going_on(fresh=fresh)
        train_stage(spec, train, dev, job.work, recipe, coarse_levels=levels, **how)
        return {"crop": crop}

    title = f"stage {name}, {plan.model.layers} x {plan.model.width}"
    return Step(name, title, {"stage": plain(plan)}, run, ("tokenize",), (path,), _minutes(plan.recipe), shared=True)


def fitting_crop(wanted: float, ahead: int, *tokens: Tokens) -> float:
    """``wanted`` seconds, or what the longest clip of each token file has, if that is less."""
    longest = min(int(each.index[:, 1].max()) for each in tokens)
    return min(wanted, (longest - ahead) / 25)


def _ends(job: Job) -> list[Step]:
    draft = job.work / "draft"

    def measure(_: bool) -> Mapping[str, Any]:
        from audiolm.train.export import assemble, likelihoods, reconstruction

        sampling = {name: getattr(job.preset.export.sampling, name) for name in STAGES}
        weights = {name: job.work / f"{name}.safetensors" for name in STAGES}
        parts = assemble(
            load_bundle(job.ears), weights, job.name, draft, card="", sampling=sampling, dtypes=_dtypes(job)
        )
        train, dev = job.tokens("train"), job.tokens("dev")
        crops = {name: _crop(job, parts, name, train, dev) for name in STAGES}
        levels = _levels(parts)
        return {
            "likelihoods": likelihoods(parts, train, dev, crops),
            "reconstruction": reconstruction(parts.codec, job.corpus("dev"), levels),
        }

    def export(_: bool) -> Mapping[str, Any]:
        from audiolm.train.card import SWEEP, write_card
        from audiolm.train.export import publish

        _take(job.work / SWEEP, draft / SWEEP)
        write_card(_runs(job, draft), draft)
        publish(draft, job.out)
        return {"megabytes": round(sum(path.stat().st_size for path in job.out.iterdir()) / 1e6, 3)}

    sampling = {"sampling": plain(job.preset.export.sampling), "name": job.name}
    said = {"licences": job.licences, "out": str(job.out)}
    made = tuple(job.out / name for name in ("config.json", "CARD.md"))
    return [
        Step("measure", "held-out likelihoods and reconstruction", sampling, measure, ("ears", *STAGES), (draft,)),
        Step("export", f"the bundle {job.out}", said, export, ("prepare", "measure"), made),
    ]


def _take(picture: Path, there: Path) -> None:
    """Copy a picture, or see to it that there is none where it is not drawn any more."""
    if picture.is_file():
        shutil.copy(picture, there)
    else:
        there.unlink(missing_ok=True)


def _runs(job: Job, draft: Path) -> "Runs":
    """What the card says, out of records and logs."""
    from audiolm.train.card import RUNS, Runs
    from audiolm.train.curves import read_log

    names = ("prepare", "codec", "encoder", "ears", "tokenize", *STAGES, "measure")
    records = {name: Record.read(job.records / f"{name}.json") for name in names}
    figures = {name: record.figures if record is not None else {} for name, record in records.items()}
    return Runs(
        parts=load_bundle(draft),
        about=f"Made with the preset {job.preset.name}: {job.preset.about}.",
        command=job.command,
        licences=job.licences,
        dtypes=_dtypes(job),
        prepare=figures["prepare"],
        ears=figures["ears"],
        measure=figures["measure"],
        crops={name: figures[name]["crop"] for name in STAGES if "crop" in figures[name]},
        seconds={name: record.seconds for name, record in records.items() if record is not None},
        logs={name: read_log(job.work / f"{name}.jsonl") for name in RUNS},
    )


def _crop(job: Job, parts: Parts, name: str, *tokens: Tokens) -> float:
    return fitting_crop(job.preset.plan(name).recipe.crop, parts.stages[name].spec.ahead, *tokens)


def _levels(parts: Parts) -> tuple[int, ...]:
    """Numbers of levels to reconstruct from: the coarse ones, half of the fine ones too, all."""
    config = parts.codec.config
    return tuple(sorted({config.coarse_levels, (config.coarse_levels + config.levels) // 2, config.levels}))
