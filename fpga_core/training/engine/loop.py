"""The training loop: the same for everything that is trained, in one process or many, resumable at any time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from ...boundaries import written_whole
from ...errors import InvalidInputError, TrainingCheckpointError, TrainingDivergedError
from ..data.batch import BatchSource
from ..method.objective import TrainingModel
from ..method.seeding import seeded
from .averaging import ParameterAverage
from .batches_ahead import BatchesAhead
from .curves import LossCurves
from .loss_log import LossLog, copy_losses
from .optimizers import make_optimizer
from .order import SampleOrder, slot_generator, split_held_out, validation_generator
from .processes import stop_signals
from .saved_states import StateWriter, TrainingState, check_parameters, check_settings, newest_state, read_state
from .settings import Precision, TrainingSettings
from .sharding import as_number, gathered, shard, split_as, split_optimizer_state, unsynchronised, whole

if TYPE_CHECKING:
    from accelerate import Accelerator

CURVES_FILE = "losses.png"
SAMPLES_FOLDER = "samples"


@dataclass(frozen=True)
class Hooks:
    """What the caller is told and asked between iterations.

    Attributes:
        report: gets each line of the loss log, in the main process only.
        sample: draws a picture with the parameters as they would be exported, in the main process only.
        should_stop: returns whether to save the state and stop.
    """

    report: Callable[[Mapping[str, float]], None] = lambda line: None
    sample: Callable[[int], Image.Image] | None = None
    should_stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Outcome:
    """The outcome of a training.

    Attributes:
        iterations: number of iterations that have been done, earlier runs included.
        was_stopped: whether it was stopped before the end; running it again continues.
        losses: the whole log; empty except in the main process.
        files: what was exported; empty if it was stopped, and in all but the main process.
    """

    iterations: int
    was_stopped: bool
    losses: tuple[Mapping[str, float], ...] = ()
    files: tuple[Path, ...] = ()


def train(
    model: TrainingModel,
    batches: BatchSource,
    settings: TrainingSettings,
    *,
    folder: Path,
    accelerator: Accelerator,
    model_settings: Mapping[str, Any] | None = None,
    trained_on: str = "",
    hooks: Hooks | None = None,
    start: Path | None = None,
) -> Outcome:
    """Trains a model from the newest state in the folder, or from its beginning, and exports it at the end.

    The folder receives `checkpoint-*.pt`, `losses.jsonl`, `losses.png`, `samples/*.png` and the exported files. Several
    machines need the same folder.

    Args:
        model: on any device; it is moved to that of the accelerator.
        batches: the training set.
        settings: settings of the engine.
        folder: created if it does not exist.
        accelerator: from `processes.start_processes`, with the same precision.
        model_settings: other values that the loss curve depends on, name -> number or text (the base model, lengths of
            stages).
        trained_on: what the exported files name as their training data.
        hooks: callbacks.
        start: a state of another training to start from if the folder has none. Its parameters, optimizer, iteration
            and log are taken over; settings and data can differ.
    Returns:
        The outcome.
    Raises:
        ResumeMismatchError: the state in the folder belongs to a training with other settings, data or parameters.
        TrainingCheckpointError: a file cannot be read or written (disk full).
        TrainingDivergedError: the loss or its gradient is not a number; the last saved state is kept.
        TrainingDataError: a sample cannot be used. The state is saved first, as it is whatever breaks an iteration.
    """
    _make_folder(folder)
    hooks = hooks or Hooks()
    with stop_signals() as stop, torch.inference_mode(False), torch.enable_grad():
        run = _Run(
            given=model,
            batches=batches,
            settings=settings,
            folder=folder,
            accelerator=accelerator,
            model_settings=dict(model_settings or {}),
            start=start,
        )
        with run.ahead:
            while run.iteration < settings.iterations and not run.is_stopped:
                line = run.step(stop.is_set() or hooks.should_stop())
                if accelerator.is_main_process:
                    hooks.report(line)
                if settings.sample_every and run.iteration % settings.sample_every == 0:
                    run.draw_sample(hooks)
        files = () if run.is_stopped else run.export(trained_on)
        if not accelerator.is_main_process:
            return Outcome(run.iteration, run.is_stopped)
        return Outcome(run.iteration, run.is_stopped, tuple(run.log.lines()), files)


@dataclass(kw_only=True)
class _Run:
    """One run of a training, with everything that changes during it."""

    given: TrainingModel
    batches: BatchSource
    settings: TrainingSettings
    folder: Path
    accelerator: Accelerator
    model_settings: dict[str, Any]
    start: Path | None
    iteration: int = 0
    is_stopped: bool = False
    _saved: int = 0

    def __post_init__(self) -> None:
        settings, accelerator = self.settings, self.accelerator
        self._saved_at = time.monotonic()
        num_slots = settings.accumulation * accelerator.num_processes
        self.slots = range(accelerator.process_index, num_slots, accelerator.num_processes)
        trained_on, self.held_out = split_held_out(len(self.batches), settings.held_out, settings.seed)
        order = SampleOrder(trained_on, seed=settings.seed, batch_size=settings.batch_size, num_slots=num_slots)
        self.ahead = BatchesAhead(self.batches, order, self.slots)
        self.decisive = {**settings.decisive(accelerator.num_processes), **self.model_settings}
        self.decisive["data"] = self.batches.fingerprint
        self.given.to(accelerator.device)
        self.is_sharded = settings.is_sharded and accelerator.num_processes > 1
        if self.is_sharded:
            shard(self.given, accelerator)
        self.parameters = {name: value for name, value in self.given.named_parameters() if value.requires_grad}
        optimizer = make_optimizer(
            settings.optimizer,
            self._groups(),
            learning_rate=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
        )
        self.average = ParameterAverage(self.parameters, settings.ema_decay, on_cpu=settings.is_average_on_cpu)
        state = self._read_state()
        if state is not None:
            self._take(state, optimizer)
        self.optimizer = accelerator.prepare_optimizer(optimizer)
        self.model = self.given if self.is_sharded else accelerator.prepare_model(self.given)
        if state is not None and state.scaler is not None and accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(dict(state.scaler))
        accelerator.wait_for_everyone()  # before the main process writes to where others read
        if accelerator.is_main_process:
            for partial in self.folder.glob("*.part"):  # from a run that was killed
                partial.unlink()
            if self.start is not None and newest_state(self.folder) is None:
                copy_losses(self.start.parent, self.folder)
            self.log = LossLog(self.folder, self.iteration)
            self.curves = LossCurves(self.log.lines())
        self.writer = StateWriter(self.folder, settings.num_checkpoints, in_background=settings.saves_in_background)

    def _groups(self) -> list[dict[str, Any]]:
        """Returns the parameters by their factor on the learning rate."""
        for part, _ in self.settings.rates:
            if not any(name == part or name.startswith(f"{part}.") for name in self.parameters):
                parts = ", ".join(dict.fromkeys(name.partition(".")[0] for name in self.parameters))
                raise InvalidInputError(f"a learning rate is given for '{part}', but the parts are: {parts}")
        groups: dict[float, list[Tensor]] = {}
        for name, parameter in self.parameters.items():
            factor = self.settings.rate_factor(name)
            if name.startswith(self.given.new_layers):
                factor *= self.settings.new_layers_factor
            groups.setdefault(factor, []).append(parameter)
        return [{"params": parameters, "factor": factor} for factor, parameters in groups.items()]

    def step(self, is_stop_wanted: bool) -> dict[str, float]:
        """One iteration of all processes; saves the state if it is due. Returns the line of the log."""
        parts = self._backward_all()
        losses, is_stop_wanted, is_due = self._agreed(parts, is_stop_wanted)
        norm = as_number(self.accelerator.clip_grad_norm_(self.parameters.values(), self.settings.max_grad_norm))
        # under float16 the scaler looks for infinite gradients: it skips the step and scales less
        is_number = math.isfinite(norm) or self.settings.precision is Precision.FLOAT16
        if not (is_number and all(map(math.isfinite, losses.values()))):
            raise self._diverged(losses, norm)
        learning_rate = self.settings.learning_rate_at(self.iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.iteration)
        line = {"iteration": self.iteration, **losses, "learning_rate": learning_rate, "gradient_norm": norm}
        if self.settings.validate_every and (self.iteration + 1) % self.settings.validate_every == 0:
            line["validation"] = self._validate()
        if self.accelerator.is_main_process:
            self.log.add(line)
            self.curves.add(line)
        self.iteration += 1
        is_last = self.iteration == self.settings.iterations
        self.is_stopped = is_stop_wanted and not is_last
        if is_last or self.is_stopped or is_due:
            self._save()
        if is_last or self.is_stopped:
            self.writer.finish()
        return line

    def _validate(self) -> float:
        """Returns the loss of the averaged parameters on the samples held out, with the same draws each time. The
        processes share the batches."""
        size, accelerator = self.settings.batch_size, self.accelerator
        batches = [self.held_out[start : start + size] for start in range(0, len(self.held_out), size)]
        own: list[tuple[int, float]] = []
        with self.averaged(), accelerator.autocast():
            for number in range(accelerator.process_index, len(batches), accelerator.num_processes):
                batch = self.batches.batch(batches[number]).to(accelerator.device)
                generator = validation_generator(self.settings.seed, number)
                with seeded(generator.initial_seed(), accelerator.device):
                    loss = self.given.validation_loss(batch, self.iteration, generator)
                own.append((number, len(batches[number]) * float(loss)))
        return sum(loss for _, loss in sorted(self._gathered(own))) / len(self.held_out)

    def draw_sample(self, hooks: Hooks) -> None:
        """Saves a picture by the averaged parameters in the folder."""
        with self.averaged(), self.accelerator.autocast():
            if self.accelerator.is_main_process and hooks.sample is not None:
                picture = hooks.sample(self.iteration)
                path = self.folder / SAMPLES_FOLDER / f"{self.iteration:08}.png"
                path.parent.mkdir(exist_ok=True)
                _save_picture(picture, path)
            self.accelerator.wait_for_everyone()

    def export(self, trained_on: str) -> tuple[Path, ...]:
        """Writes the files that the pack's nodes load, with the averaged parameters; in the main process."""
        with self.averaged():
            files = tuple(self.given.export(self.folder, trained_on)) if self.accelerator.is_main_process else ()
            self.accelerator.wait_for_everyone()
            return files

    @contextmanager
    def averaged(self) -> Generator[None, None, None]:
        """Within the block, the model has its averaged parameters, whole in every process. All enter it together."""
        with torch.no_grad(), self.average.applied(), whole(self.given, is_sharded=self.is_sharded):
            yield

    def _backward_all(self) -> list[dict[str, Tensor]]:
        """Computes the gradients of this process's slots. If anything breaks in here (the host's Cancel, a bad sample,
        too little memory), no parameter has changed yet: the state is saved before the error is raised, unless other
        processes, which may not have failed, would have to give their shares of it."""
        try:
            return [self._backward(slot) for slot in self.slots]
        except BaseException:
            if self.iteration > self._saved and not self.is_sharded:
                self._save()
            self.writer.finish()
            raise

    def _backward(self, slot: int) -> dict[str, Tensor]:
        """Adds the gradients of one slot. With the last slot, those of all processes are averaged."""
        batch = self.ahead.take(self.iteration, slot).to(self.accelerator.device)
        generator = slot_generator(self.settings.seed, self.iteration, slot)
        for_dropout = seeded(generator.initial_seed(), self.accelerator.device)
        with self._synchronised(slot), for_dropout:
            parts: dict[str, Tensor] = self.model(batch, self.iteration, generator)
            self.accelerator.backward(parts["loss"] / self.settings.accumulation)
        return {name: part.detach() for name, part in parts.items()}

    def _synchronised(self, slot: int) -> AbstractContextManager[None]:
        """Within the block, gradients are averaged over the processes if it is the last slot."""
        if slot == self.slots[-1]:
            return nullcontext()
        return unsynchronised(self.given) if self.is_sharded else self.accelerator.no_sync(self.model)

    def _agreed(self, parts: list[dict[str, Tensor]], is_stop_wanted: bool) -> tuple[dict[str, float], bool, bool]:
        """The mean of each part over the slots that have it, and whether any process wants to stop, or to save."""
        wishes = (is_stop_wanted, self._is_save_due())
        own = [({name: float(part) for name, part in slot.items()}, wishes) for slot in parts]
        own = self._gathered(own)
        names = dict.fromkeys(name for slot, _ in own for name in slot)
        values = {name: [slot[name] for slot, _ in own if name in slot] for name in names}
        means = {name: sum(found) / len(found) for name, found in values.items()}
        return means, any(stop for _, (stop, _) in own), any(save for _, (_, save) in own)

    def _gathered(self, own: list[Any]) -> list[Any]:
        """Returns the items of all processes."""
        if self.accelerator.num_processes == 1:
            return own
        from accelerate.utils import gather_object

        return gather_object(own)

    def _is_save_due(self) -> bool:
        """Whether the state after this iteration is saved, by the clock or by the number of iterations."""
        if self.settings.checkpoint_minutes:
            return time.monotonic() - self._saved_at >= 60 * self.settings.checkpoint_minutes
        return (self.iteration + 1) % self.settings.checkpoint_every == 0

    def _save(self) -> None:
        is_main, scaler = self.accelerator.is_main_process, self.accelerator.scaler
        self._saved, self._saved_at = self.iteration, time.monotonic()
        if not (is_main or self.is_sharded):
            return
        state = TrainingState(
            iteration=self.iteration,
            settings=self.decisive,
            parameters={name: value.detach() for name, value in self.parameters.items()},
            average=self.average.state_dict(),
            optimizer=self.optimizer.optimizer.state_dict(),
            scaler=None if scaler is None else scaler.state_dict(),
        )
        if self.is_sharded:
            state = TrainingState(**gathered(vars(state), is_kept=is_main))
        if not is_main:
            return
        self.writer.write(state)
        _save_picture(self.curves.draw(), self.folder / CURVES_FILE)

    def _read_state(self) -> TrainingState | None:
        own = newest_state(self.folder)
        path = own or self.start
        if path is None:
            return None
        state = read_state(path)
        if own is not None:
            check_settings(path, state.settings, self.decisive)
        check_parameters(path, state.parameters, self.parameters)
        return state

    @torch.no_grad()
    def _take(self, state: TrainingState, optimizer: torch.optim.Optimizer) -> None:
        self.iteration = self._saved = state.iteration
        for name, parameter in self.parameters.items():
            parameter.copy_(split_as(state.parameters[name], parameter))
        self.average.load_state_dict(
            {name: split_as(mean, self.parameters[name]) for name, mean in state.average.items()}
        )
        optimizer.load_state_dict(split_optimizer_state(state.optimizer, optimizer))

    def _diverged(self, losses: Mapping[str, float], norm: float) -> TrainingDivergedError:
        kept = newest_state(self.folder)
        values = ", ".join(f"{name} {value:g}" for name, value in {**losses, "gradient norm": norm}.items())
        return TrainingDivergedError(
            f"the training diverged in iteration {self.iteration} ({values}); the last saved state is "
            f"{(kept.name if kept else 'none')}: lower the learning rate, raise the warm-up, or train in float32 or "
            "bf16, with another output folder"
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingCheckpointError(f"'{folder}' cannot be created: {error}; choose another output folder") from error


def _save_picture(picture: Image.Image, path: Path) -> None:
    with written_whole(path, TrainingCheckpointError) as partial:
        picture.save(partial, "PNG")
