"""One run of training, from the split to the report."""

import hashlib
import json
import os
import platform
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from taxonet._version import __version__
from taxonet.checking.exclusion import write_exclusion_list
from taxonet.console import Listener, Silent
from taxonet.data import ClassIndex, Finding, Sample
from taxonet.errors import DataError, UsageError
from taxonet.evaluation import Calibration, Evaluation, evaluate_samples, fit_calibration
from taxonet.evaluation.calibrate import held_out
from taxonet.evaluation.overlay import explain_mistakes
from taxonet.evaluation.report import THUMBNAIL, TrainingReport, worst_mistakes, write_report
from taxonet.files import make_folder, write_atomically
from taxonet.inference import Classifier
from taxonet.inference.engines import TorchEngine
from taxonet.networks.layers import Network, batch_norms
from taxonet.networks.memory import is_out_of_memory
from taxonet.processes import World, launch_name
from taxonet.training.balance import weights_of
from taxonet.training.budget import EXPLAIN_SECONDS, EXPLAIN_SHARE, REPORT_SECONDS, Budget, Spent, spent
from taxonet.training.changes import changes
from taxonet.training.checkpoint import KEPT, checkpoints
from taxonet.training.choose import choose_recipe, told
from taxonet.training.compatibility import (
    check_augmentation,
    check_frozen_stages,
    check_norm_values,
    check_size,
)
from taxonet.training.deadline import Deadline
from taxonet.training.distillation import Teacher
from taxonet.training.distributed import check_division, division, same_start
from taxonet.training.estimate import estimate
from taxonet.training.features import extract, fit_frozen
from taxonet.training.feed import steps_of
from taxonet.training.head import choose_pictures, fit_head
from taxonet.training.inputs import input_statistics
from taxonet.training.loggers import Loggers, open_loggers
from taxonet.training.loop import CHECKPOINT_SECONDS, InterruptedRun, Training, fit
from taxonet.training.opening import EXCLUDE, RECIPE, RUN
from taxonet.training.pictures import Pictures, fingerprint, open_briefly, open_once
from taxonet.training.precision import measure_precision
from taxonet.training.results import BUNDLE, REPORT, TrainResult, headline, unique, write_table
from taxonet.training.screening import (
    Screened,
    warning_lines,
)
from taxonet.training.starting import start_of
from taxonet.training.stopping import best_epoch
from taxonet.weights.bundle import BundleInfo
from taxonet.weights.catalogue import UNKNOWN, entries
from taxonet.weights.networks import save_network

LISTED = 12  # classes that the start names


def _top1(found: Evaluation) -> str:
    (low, high), n = found.metrics.top1_ci, found.metrics.n
    return f"top-1 {found.metrics.top1:.3f} (95 % interval {low:.3f} to {high:.3f}, {n:,} pictures)"


def where_it_goes_on(training: Training) -> str:
    """Where a resumed run goes on."""
    position, recipe = training.position, training.recipe
    if training.is_over:
        return f"going on at the end: all {position.epoch} epochs are done, the bundle and the report are written"
    steps = steps_of(recipe, len(training.train))
    return f"going on in epoch {position.epoch + 1} of {recipe.epochs}, after {position.step} of its {steps} steps"


class Job:
    """One call of `train`, from the split to the report."""

    def __init__(
        self,
        data: Path,
        run: Path,
        variant: str,
        screened: Screened,
        weights: str,
        listener: Listener,
        world: World,
    ) -> None:
        self.data, self.run, self.variant, self.listener = data, run, variant, listener
        self.screened, self.split = screened, screened.split
        self.weights, self.world, self.log = weights, world, ""
        self.keep_checkpoints, self.checkpoint_seconds = KEPT, CHECKPOINT_SECONDS
        self.explain = True
        self.before: dict[str, Any] = {}  # run.json of a run that goes on
        self.keeps_memory = False
        self.budget: Budget | None = None
        self.began = self.started = time.monotonic()  # `began`: when nothing of a budget was used
        self.deadline: Deadline | None = None

    def work(self, recipe: Any, overrides: dict[str, Any], resume: bool) -> TrainResult:
        """Train; the recipe is chosen, or that of the run which goes on."""
        start = self.start = start_of(self.variant, self.weights, self.split)
        self.pretrained, self.channels = start.pretrained, start.channels
        if self.weights == "auto":  # what is here may be something else when the run goes on
            self.weights = self.pretrained.provenance["weights"] if self.pretrained else "none"
        facts, norms = start.facts(self.split, self.world.on_gpu), batch_norms(start.plain)
        self.recipe, reasons = choose_recipe(recipe, facts, overrides)
        check_norm_values(self.variant, norms, overrides)
        if self.budget and not resume:
            reasons |= dict.fromkeys(self.budget.values, f"chosen for the budget of {self.budget.asked}")
        check_frozen_stages(start.plain, self.variant, self.recipe.frozen_stages, self.pretrained is not None)
        self.preprocessing = preprocessing = start.sized(self.recipe.image_size)
        check_size(start.plain, self.variant, self.channels, preprocessing.output_size)
        check_augmentation(self.recipe.augmentation, preprocessing.output_size)
        self.teacher = Teacher.open(self.recipe.teacher, self.split.classes) if self.recipe.teacher else None
        open_loggers(self.log, self.run, {})  # one that is not there is refused before any work
        if self.recipe.precision == "auto":
            word, reasons["precision"] = json.loads(self.world.from_first(self._measured_precision))
            self.recipe = replace(self.recipe, precision=word)
        self._announce(reasons, resume)
        short_side = max(self.recipe.image_size, *(self.teacher.preprocessing.output_size if self.teacher else (0,)))
        train, pictures, findings = open_once(self.split.train, short_side, self.channels, self.listener, self.world)
        self.findings = (*self.split.findings, *findings)
        self._check_classes(train, findings)
        self._leave_out_unreadable(pictures)
        self.screened = self.screened.with_unmeasured(replace(self.split, train=tuple(train)))
        self._report_pictures(len(train))
        if self.world.size > 1:
            check_division(start.plain, self.recipe, len(train), self.world)
        self._identify(train)
        if resume:
            self._check_unchanged()
        self.world.agreed(lambda: self._record(train, resume))
        return self._fit(train, pictures, resume)

    def _measured_precision(self) -> bytes:
        built = self.start.build(self.recipe, len(self.split.classes)).to(self.world.device)
        size = self.preprocessing.output_size
        return json.dumps(measure_precision(built, self.channels, size, self.recipe.batch_size)).encode()

    def _check_classes(self, train: Sequence[Sample], findings: Sequence[Finding]) -> None:
        missing = sorted(set(self.split.classes) - {sample.label for sample in train})
        if missing:
            theirs = {str(sample.path) for sample in self.split.train if sample.label == missing[0]}
            reason = next(finding.reason for finding in findings if finding.path in theirs)
            raise DataError(f"no training picture of the class '{missing[0]}' can be read, the first: {reason}")

    def _leave_out_unreadable(self, pictures: Pictures) -> None:
        """Validation and test pictures that cannot be read are known before the first epoch, not after it."""
        val, broken_val = open_briefly(self.split.val, pictures, self.listener, self.world)
        test, broken_test = open_briefly(self.split.test, pictures, self.listener, self.world)
        if not val:
            raise DataError(f"no validation picture can be read, the first: {broken_val[0].reason}")
        self.split = replace(self.split, val=val, test=test)
        self.findings = (*self.findings, *broken_val, *broken_test)

    def _report_pictures(self, training: int) -> None:
        split, test = self.split, f", {len(self.split.test)} for the test" if self.split.test else ""
        self.listener.say(f"pictures: {training} for training, {len(split.val)} for validation ({split.origin}){test}")
        for line in self.screened.lines():
            self.listener.say(line)
        for finding in self.findings[:20]:
            self.listener.say(f"left out: {finding.path}: {finding.reason}")
        if len(self.findings) > 20:
            self.listener.say(f"left out: {len(self.findings) - 20} more, all in {self.run / RUN}")

    def _announce(self, reasons: dict[str, str], resume: bool) -> None:
        say, split = self.listener.say, self.split
        shown = split.classes if len(split.classes) <= LISTED + 1 else (*split.classes[:LISTED], "…")
        say(f"{self.variant}, {len(split.classes)} classes: {', '.join(shown)}")
        start = self.pretrained.provenance["weights"] if self.pretrained else "fresh weights"
        say(f"start: {start}; preprocessing: {self.preprocessing}")
        if self.channels == 1:
            say("the pictures are grey: the network gets one channel")
        if self.world.on_gpu:
            say(f"device: {torch.cuda.get_device_name(self.world.device)} (--device cpu turns it off)")
        if self.world.size > 1:
            say(division(self.recipe, self.world))
        if self.teacher:
            say(f"teacher: {self.teacher.name}; preprocessing: {self.teacher.preprocessing}")
        if self.keeps_memory:
            say("memory: glibc keeps freed memory, for faster steps (--no-keep-memory turns it off)")
        if resume:
            say(f"recipe: that of the run, in {self.run / RECIPE}")
            return
        for line in told(self.recipe, reasons):
            say(line)

    def _identify(self, train: Sequence[Sample]) -> None:
        self.used = {"train": train, "val": self.split.val, "test": self.split.test}
        self.fingerprint = fingerprint(self.used, self.data)
        identity = json.dumps(
            [self.variant, self.recipe.to_toml(), self.fingerprint, self.split.classes, str(self.preprocessing)]
            + ([self.teacher.digest] if self.teacher else [])
        )
        self.key = hashlib.sha256(identity.encode()).hexdigest()
        if len(set(self.world.gather(self.key.encode()))) > 1:
            raise DataError(f"the processes do not see the same pictures in {self.data}")

    def _check_unchanged(self) -> None:
        """Refuse to go on with other pictures or another teacher, and name the change."""
        begun = self.before.get("teacher")
        if begun and self.teacher and self.teacher.digest != begun:
            raise DataError(f"the teacher {self.teacher.name} is not the one that the run in {self.run} began with")
        if self.before["fingerprint"] == self.fingerprint:
            return
        source = Path(self.before["source"])
        found = self.world.from_first(lambda: os.fsencode(changes(self.run, source, self.data, self.used)))
        raise DataError(
            f"the pictures of {self.data} are not those that the run in {self.run} began with: {os.fsdecode(found)}; "
            "put them back, or begin another run"
        )

    def _record(self, train: Sequence[Sample], resume: bool) -> None:
        if not self.world.first:
            return
        if not resume:
            make_folder(self.run)
            self._write_facts(len(train))
        elif self.log != self.before.get("log", ""):
            self._write_run(self.before | {"log": self.log})
        for name, samples in self.used.items():
            if samples and not (self.run / f"{name}.csv").exists():  # a kill may have come before
                write_table(self.run / f"{name}.csv", samples)

    def _write_facts(self, training_pictures: int) -> None:
        """What a run needs to go on. The recipe is the last: until it is there, the start can be made again."""
        facts = {
            "source": str(self.data.absolute()),
            "fingerprint": self.fingerprint,
            "model": self.variant,
            "weights": self.weights,
            "preprocessing": str(self.preprocessing),
            "classes": self.split.classes,
            "counts": {"train": training_pictures, "val": len(self.split.val), "test": len(self.split.test)},
            "validation": self.split.origin,
            "excluded": [{"path": f.path, "error": f.reason} for f in self.findings],
            **({"log": self.log} if self.log else {}),
            **({"teacher": self.teacher.digest} if self.teacher else {}),
            **({"launch": name} if (name := launch_name()) else {}),
            **({"budget": self.budget.as_dict()} if self.budget else {}),
            **self.screened.record(),
        }
        self._write_run(facts)
        if self.screened.exclude:
            write_exclusion_list(self.run / EXCLUDE, self.screened.exclude.names)
        write_atomically(self.run / RECIPE, self.recipe.to_toml().encode())

    def _write_run(self, facts: Mapping[str, Any]) -> None:
        text = json.dumps(facts, indent=2, ensure_ascii=False)
        write_atomically(self.run / RUN, text.encode(errors="backslashreplace"))

    def _network(self, items: Sequence[tuple[Path, int]], pictures: Pictures, resume: bool) -> Network:
        network = self.start.build(self.recipe, len(self.split.classes)).to(self.world.device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.pretrained is not None:
            whole = self.pretrained.load_into(network, self.split.classes)
            if self.recipe.head_first and not whole and not resume:
                labels = [label for _, label in items]
                chosen = choose_pictures(labels, self.recipe.seed)
                paths, labels = [items[i][0] for i in chosen], [labels[i] for i in chosen]
                features = extract(network, self.preprocessing, pictures, paths, self.listener, self.world)
                bias = network.classifier.bias is not None
                head, accuracy = fit_head(features, labels, bias, self._class_weights([label for _, label in items]))
                head.put_into(network)
                self.listener.say(f"head: logistic regression on the frozen features, training top-1 {accuracy:.3f}")
        same_start(network, self.world)
        return network

    def _class_weights(self, labels: Sequence[int]) -> list[float] | None:
        return weights_of(self.recipe, np.bincount(labels, minlength=len(self.split.classes)).tolist())

    def _fit(self, train: Sequence[Sample], pictures: Pictures, resume: bool) -> TrainResult:
        index = ClassIndex(self.split.classes)
        labels = [index[sample.label] for sample in train]
        at_checkpoint = resume and self.world.any(self.world.first and bool(checkpoints(self.run)))
        facts = asdict(self.recipe) | {"model": self.variant}
        self.deadline = self.budget.deadline(self.began) if self.budget else None
        items = [(sample.path, label) for sample, label in zip(train, labels, strict=True)]
        training = Training(
            run=self.run,
            recipe=self.recipe,
            network=self._network(items, pictures, at_checkpoint),
            preprocessing=self.preprocessing,
            pictures=pictures,
            train=list(zip(train, labels, strict=True)),
            val=self.split.val,
            key=self.key,
            listener=self.listener,
            classifier=self._classifier,
            teacher=self.teacher,
            loggers=open_loggers(self.log, self.run, facts) if self.world.first else Loggers(),
            world=self.world,
            keep_checkpoints=self.keep_checkpoints,
            checkpoint_seconds=self.checkpoint_seconds,
            deadline=self.deadline,
        )
        if resume:
            self.listener.say(
                where_it_goes_on(training) if training.restore() else "no checkpoint yet: the run begins again"
            )
        try:
            if self.recipe.frozen:
                return self._finish(training, fit_frozen(training, self._class_weights(labels)))
            if not at_checkpoint and not self.budget and self.world.any(not isinstance(self.listener, Silent)):
                self.listener.say(f"estimate, from the first steps: {estimate(training)}")
            evaluation = fit(training)
        except InterruptedRun:
            self.listener.finish()
            training.loggers.close({})
            self.listener.say(f"stopped, nothing is lost; the same command with --resume goes on ({self.run / 'last'})")
            return self._result(training, None, None, interrupted=True)
        return self._finish(training, evaluation)

    def _info(self, metrics: dict[str, Any], temperature: float = 1.0) -> BundleInfo:
        provenance = {
            "data": {"fingerprint": self.fingerprint, "name": self.data.name.encode(errors="replace").decode()},
            "recipe": asdict(self.recipe),
            "parent": self.pretrained.provenance if self.pretrained else None,
            **(
                {"teacher": {"name": Path(self.teacher.name).name, "weights": self.teacher.digest}}
                if self.teacher
                else {}
            ),
            "versions": {
                "taxonet": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
            "seed": self.recipe.seed,
        }
        parent = (self.pretrained.provenance if self.pretrained else {}).get("weights")
        licence = next((e.licence for e in entries() if e.name == parent and e.licence != UNKNOWN), None)
        return BundleInfo(
            variant=self.variant,
            classes=self.split.classes,
            preprocessing=str(self.preprocessing),
            temperature=temperature,
            metrics=metrics,
            provenance=provenance,
            licence=f"trained from weights under {licence}" if licence else None,
        )

    def _classifier(self, network: Network, temperature: float = 1.0) -> Classifier:
        info = self._info({}, temperature)
        return Classifier(info, TorchEngine(network, info.preprocessing))

    def _calibrate(self, network: Network, raw: Evaluation) -> tuple[Calibration, Evaluation]:
        """The temperature that validation gives, and the evaluation with it, cross-fitted: not flattered."""
        assert raw.scores is not None
        fitted = fit_calibration(raw.scores.logits, raw.scores.targets)
        before, after = fitted.before, fitted.after
        effect = (
            f"log-loss {before['log_loss']:.3f} → {after['log_loss']:.3f}, ece {before['ece']:.3f} → {after['ece']:.3f}"
        )
        why = f" ({fitted.reason})" if fitted.reason else f" ({effect}, cross-fitted on validation)"
        self.listener.say(f"temperature {fitted.temperature:.3f}{why}")
        return fitted, held_out(self._classifier(network), raw, fitted)

    def _finish(self, training: Training, evaluation: Evaluation) -> TrainResult:
        calibration, evaluation = self._calibrate(training.result, evaluation)
        classifier = self._classifier(training.result, calibration.temperature)
        test = evaluate_samples(classifier, self.split.test, world=self.world) if self.split.test else None
        self.findings = unique((*self.findings, *evaluation.findings, *(test.findings if test else ())))
        log = training.log()
        figures = {"validation": headline(evaluation)} | ({"test": headline(test)} if test else {})
        epoch = best_epoch(log) if self.recipe.patience else len(log)  # whose weights these are
        if self.world.first:
            self._write_results(training, calibration, evaluation, test, {**figures, "epoch": epoch}, log)
        self.world.gather(b"")  # the others wait: a process that has gone is a process that was lost
        return self._result(training, evaluation, test)

    def _write_results(
        self,
        training: Training,
        calibration: Calibration,
        evaluation: Evaluation,
        test: Evaluation | None,
        metrics: dict[str, Any],
        log: list[dict[str, Any]],
    ) -> None:
        kept = metrics | input_statistics([sample for sample, _ in training.train], self.preprocessing)
        save_network(self.run / BUNDLE, self._info(kept, calibration.temperature), training.result)
        training.loggers.close({f"{part}_top1": metrics[part]["top1"] for part in metrics if part != "epoch"})
        classifier = self._classifier(training.result, calibration.temperature)
        report = TrainingReport(
            model=self.variant,
            source=str(self.data),
            command=self._command(),
            recipe=asdict(self.recipe),
            preprocessing=str(self.preprocessing),
            log=log,
            counts={"training": len(training.train), "validation": len(self.split.val), "test": len(self.split.test)},
            origin=self.split.origin,
            validation=evaluation,
            test=test,
            findings=self.findings,
            seconds=time.monotonic() - self.started,
            calibration=calibration,
            explained=self._explained(classifier, test or evaluation),
            warnings=warning_lines(self.screened.warnings),
            budget=self._spent(training).as_dict() if self.budget else None,
        )
        write_report(self.run / REPORT, report)
        for part, found in (("validation", evaluation), ("test", test)):
            if found:
                self.listener.say(f"{part} {_top1(found)}")
        if self.budget:
            self.listener.say(str(self._spent(training)))
        self.listener.say(f"bundle: {self.run / BUNDLE}    report: {self.run / REPORT}")

    def _explained(self, classifier: Classifier, shown: Evaluation) -> dict[Path, str]:
        """What spoke for the worst mistakes, in a small share of the run's time; nothing where captum is missing."""
        if not self.explain:
            return {}
        start = time.monotonic()
        seconds = max(EXPLAIN_SECONDS, EXPLAIN_SHARE * (start - self.started))
        if self.deadline:
            seconds = min(seconds, self.deadline.left() - REPORT_SECONDS)
        try:
            found = explain_mistakes(classifier, worst_mistakes(shown.outcomes), THUMBNAIL, seconds)
        except UsageError as error:
            self.listener.say(f"the report does not explain the mistakes: {error}")
            return {}
        except (RuntimeError, MemoryError) as error:  # the bundle is there, the report is still to come
            if not is_out_of_memory(error):
                raise
            self.listener.say("the report does not explain the mistakes: memory does not hold it")
            return {}
        if found:
            took = time.monotonic() - start
            self.listener.say(f"report: {len(found)} mistakes explained in {took:.1f} s (--no-explain turns it off)")
        return found

    def _command(self) -> str:
        """The command that repeats the run: the whole recipe is in the run's folder."""
        words = ["taxonet", "train", str(self.data), "--model", self.variant, "--recipe", str(self.run / RECIPE)]
        words += ["--weights", self.weights, "--out", f"{self.run}-again"]
        words += ["--exclude", str(self.run / EXCLUDE)] if self.screened.exclude else []
        words += [] if self.screened.checked else ["--no-check"]
        return shlex.join(words)

    def _spent(self, training: Training) -> Spent:
        assert self.budget
        assert self.deadline
        return spent(self.budget, self.deadline, training.position.cuts, training.steps)

    def _result(
        self, training: Training, evaluation: Evaluation | None, test: Evaluation | None, interrupted: bool = False
    ) -> TrainResult:
        return TrainResult(
            self.run,
            self.run / BUNDLE,
            self.run / REPORT,
            self.recipe,
            evaluation,
            test,
            self.findings,
            interrupted,
            self.screened.warnings,
            self._spent(training).as_dict() if self.budget else None,
        )
