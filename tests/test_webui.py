"""The engine inside a WebUI, with small stand-ins for the host's modules."""

from __future__ import annotations

import base64
import importlib
import importlib.util
import json
import sys
import threading
import time
import warnings
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clip_interrogator_ext import catalog, packages
from clip_interrogator_ext.errors import BadOption, BadWordList, Interrupted
from clip_interrogator_ext.faces.tab.uploaded import Posted
from clip_interrogator_ext.options import interrogate_options, model_options
from clip_interrogator_ext.settings import SETTINGS
from tests.posts import data_url

pytestmark = pytest.mark.hosts

ROOT = Path(__file__).parents[1]
FAKES = Path(__file__).parent / "fake_webui"
FAKED = ("modules", "backend", "modules_forge")
OURS = "clip_interrogator_ext.webui"


def forget_webui() -> None:
    for name in list(sys.modules):
        if name.split(".")[0] in FAKED or name == OURS or name.startswith(OURS + "."):
            del sys.modules[name]
    vars(sys.modules["clip_interrogator_ext"]).pop("webui", None)


def start(flavour: str, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return the modules of a WebUI that has just started."""
    forget_webui()
    for folder in ("common", flavour):
        monkeypatch.syspath_prepend(str(FAKES / folder))

    def of_host(name):
        return importlib.import_module(f"modules.{name}")

    return SimpleNamespace(
        flavour=flavour,
        shared=of_host("shared"), state=of_host("shared").state, opts=of_host("shared").opts,
        flags=of_host("shared").cmd_opts, events=of_host("shared")._events,
        progress=of_host("progress"), callbacks=of_host("script_callbacks"),
        lock=of_host("call_queue").queue_lock, of_host=of_host,
        ours=lambda name="": importlib.import_module(f"{OURS}.{name}" if name else OURS),
    )


@pytest.fixture(params=["a1111", "forge"])
def webui(request, monkeypatch):
    """A WebUI of either flavour."""
    yield start(request.param, monkeypatch)
    forget_webui()


@pytest.fixture
def a1111(monkeypatch):
    """AUTOMATIC1111."""
    yield start("a1111", monkeypatch)
    forget_webui()


@pytest.fixture
def forge(monkeypatch):
    """Forge."""
    yield start("forge", monkeypatch)
    forget_webui()


@pytest.fixture
def forge_gpu(forge):
    """Forge with our networks on a device that is no CPU."""
    forge.opts.data["clip_interrogator_ext_device"] = "meta"
    return forge


@pytest.fixture
def host(webui):
    """Our adapter to either WebUI."""
    return webui.ours("host").WebuiHost()


def is_free(lock) -> bool:
    if lock.acquire(blocking=False):
        lock.release()
        return True
    return False


# The queue and the job state


def jobs_of(webui):
    return [event for event in webui.events if event != "gc"]


def test_a_run_does_what_the_webuis_own_wrapper_does(webui, host):
    """It announces the task, locks, begins, starts; it finishes, ends and releases."""
    with host.exclusive("task(x)"):
        assert webui.state.job == webui.progress.current_task == "task(x)"
        assert not is_free(webui.lock)
    assert jobs_of(webui) == [
        "announce task(x)", "lock", "begin task(x)", "start task(x)", "finish task(x)", "end",
        "release",
    ]
    assert webui.state.job == "" and webui.state.job_count == 0
    assert not webui.progress.pending_tasks
    assert is_free(webui.lock)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_is_raised_everything_is_given_back(webui, host, error):
    with pytest.raises(error), host.exclusive("x"):
        raise error
    assert jobs_of(webui)[-3:] == ["finish x", "end", "release"]
    assert is_free(webui.lock)


@pytest.mark.parametrize(
    ("place", "name"),
    [("progress", "start_task"), ("progress", "finish_task"), ("state", "begin"), ("state", "end")],
)
def test_a_failure_of_the_webuis_own_leaves_the_lock_free(webui, host, monkeypatch, place, name):
    def fail(*_arguments, **_named):
        raise KeyboardInterrupt

    monkeypatch.setattr(getattr(webui, place), name, fail)
    with pytest.raises(KeyboardInterrupt), host.exclusive("x"):
        pass
    assert is_free(webui.lock)
    assert webui.state.job_count == 0
    assert not webui.progress.pending_tasks


def test_waiting_that_is_broken_off_leaves_no_announcement(webui, host, monkeypatch):
    def fail(_self):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(webui.lock), "__enter__", fail)
    with pytest.raises(KeyboardInterrupt), host.exclusive("x"):
        pass
    assert not webui.progress.pending_tasks


def test_an_interrupt_counts_for_the_job_that_runs(webui, host):
    """One from before is forgotten when our job begins, and ours is forgotten when it ends.

    Whoever waits for the job in another thread hears of it.
    """
    webui.state.interrupt()
    assert not host.interrupted("x")
    with host.exclusive("x"):
        assert not host.interrupted("x")
        webui.state.interrupt()
        assert host.interrupted("x")
        assert not host.interrupted("another")  # a download, for instance
        elsewhere = []
        thread = threading.Thread(target=lambda: elsewhere.append(host.interrupted("x")))
        thread.start()
        thread.join()
        assert elsewhere == [True]  # whoever waits for the run
    assert not webui.state.interrupted
    assert not host.interrupted("x")


@pytest.mark.parametrize("how", ["skipped", "stopping_generation"])
def test_skip_and_stop_end_our_job(webui, host, how):
    with host.exclusive("x"):
        setattr(webui.state, how, True)
        assert host.interrupted("x")


def fraction(state) -> float:
    """Reckon as /internal/progress does."""
    done = state.job_no / state.job_count
    return min(1, done + state.sampling_step / state.sampling_steps / state.job_count)


def test_progress_is_shown_and_grows_within_a_step(webui, host):
    with host.exclusive("x"):
        for label in ("caption", "flavors"):
            seen = []
            for done in range(5):
                host.progress(label, done, 4)
                seen.append(fraction(webui.state))
            assert webui.state.textinfo == label
            assert seen == [0, 0.25, 0.5, 0.75, 1]
        host.progress("more than all", 9, 4)
        assert fraction(webui.state) == 1


def test_time_left_is_reckoned_from_the_step(webui, host):
    with host.exclusive("x"):
        webui.state.time_start = 0
        host.progress("caption", 0, 4)
        begun = webui.state.time_start
        assert begun > 0
        host.progress("caption", 1, 4)
        assert webui.state.time_start == begun


def test_progress_outside_a_run_shows_nothing(webui, host):
    host.progress("download", 1, 2)
    assert webui.state.textinfo is None


def in_a_generation(webui, work):
    webui.of_host("processing").process_images(work)


def under_the_lock(webui, work):
    webui.of_host("call_queue").wrap_queued_call(work)()


def in_forges_main_thread(webui, work):
    main_thread = importlib.import_module("modules_forge.main_thread")
    main_thread.Task(1, work, (), {}).work()


@pytest.mark.parametrize("where", [in_a_generation, under_the_lock])
def test_inside_a_generation_neither_lock_nor_state_is_touched(webui, host, where):
    """The generation goes on with its own lock, job and progress, and its interrupt is heard."""
    seen = []

    def work():
        before = (dict(vars(webui.state)), list(jobs_of(webui)))
        with host.exclusive("x"):
            host.progress("caption", 1, 2)
            seen.append((dict(vars(webui.state)), list(jobs_of(webui))) == before)
            seen.append(host.interrupted("x"))
            webui.state.interrupt()
            seen.append(host.interrupted("x"))
        seen.append(webui.state.interrupted)

    where(webui, work)
    assert seen == [True, False, True, True]


def test_inside_forges_main_thread_nothing_is_touched(forge):
    host = forge.ours("host").WebuiHost()

    def work():
        with host.exclusive("x"):
            assert jobs_of(forge) == []

    in_forges_main_thread(forge, work)


def test_whoever_waits_for_the_queue_is_seen(webui, host, monkeypatch):
    """Threads in the lock's line, and tasks that are announced; our own is not one of them."""
    from modules import progress

    assert not host.others_wait()
    with host.exclusive("task(x)"):
        assert not host.others_wait()
        progress.add_task_to_queue("task(y)")
        assert host.others_wait()
        progress.start_task("task(y)")
        assert not host.others_wait()
        monkeypatch.setattr(webui.lock, "_pending_threads", ["a thread"])
        assert host.others_wait()
        monkeypatch.undo()


def test_whoever_waits_has_the_queue_before_we_take_it_again(webui, host, monkeypatch):
    """The lock wakes the next thread and forgets it, so we must not be quicker than that one."""
    monkeypatch.setattr(webui.ours("jobs"), "_HAND_OVER_SECONDS", 60)
    order = []

    def generate():
        webui.lock.acquire()
        order.append("generation")
        while not webui.lock._pending_threads:  # we have let go, and wait for it again
            time.sleep(0.001)
        webui.lock.release()

    for number in range(3):
        with host.exclusive("task(batch)"):
            order.append(number)
            thread = threading.Thread(target=generate, daemon=True)
            thread.start()
            while not host.others_wait():
                time.sleep(0.001)
        with host.exclusive("task(batch)"):
            order.append("next")
        thread.join(60)
    assert order == [0, "generation", "next", 1, "generation", "next", 2, "generation", "next"]


def test_the_lock_held_by_another_thread_is_waited_for(webui, host):
    """Only our own thread's functions say that we are inside a generation."""
    webui.lock.acquire()
    done = threading.Event()

    def work():
        with host.exclusive("x"):
            done.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert not done.wait(0.1)
    webui.lock.release()
    assert done.wait(60)
    thread.join(60)


# Devices, precision, folders


def test_the_users_device_wins(webui, host):
    assert host.device == "cpu"
    webui.opts.data["clip_interrogator_ext_device"] = "cuda:1"
    assert host.device == "cuda:1"


@pytest.mark.parametrize(
    ("no_half", "dtype", "device", "answer"),
    [
        (False, torch.float16, "cuda", "float16"),
        (True, torch.float16, "cuda", "float32"),
        (False, torch.float32, "cuda", "float32"),
        (False, torch.float16, "cpu", "float32"),
    ],
)
def test_precision_on_automatic1111(a1111, monkeypatch, no_half, dtype, device, answer):
    host = a1111.ours("host").WebuiHost()
    devices = a1111.of_host("devices")
    monkeypatch.setattr(a1111.flags, "no_half", no_half)
    monkeypatch.setattr(devices, "dtype", dtype)
    monkeypatch.setattr(devices, "_interrogate", torch.device(device))
    assert (host.device, host.dtype) == (device, answer)


@pytest.mark.parametrize(("device", "answer"), [("cpu", "float32"), ("cuda:0", "float16")])
def test_precision_on_forge(forge, monkeypatch, device, answer):
    host = forge.ours("host").WebuiHost()
    manager = importlib.import_module("backend.memory_management")
    monkeypatch.setattr(manager, "_device", torch.device(device))
    assert (host.device, host.dtype) == (device, answer)


def test_models_folders(webui, host, monkeypatch):
    """Ours first, then those of the flag and of the WebUI."""
    models = Path("/webui/models")
    assert host.models_dirs == (models / "clip-interrogator", models / "CLIP", models / "BLIP")
    monkeypatch.setattr(webui.flags, "clip_models_path", "/clip")
    webui.opts.data["clip_interrogator_ext_models_dir"] = "/mine"
    assert host.models_dirs == (Path("/mine"), Path("/clip"), models / "CLIP", models / "BLIP")


def test_the_users_own_lists_lie_beside_the_models(webui, host):
    assert host.lists_dir == Path("/webui/models/clip-interrogator/lists")
    webui.opts.data["clip_interrogator_ext_models_dir"] = "/mine"
    assert host.lists_dir == Path("/mine/lists")


@pytest.fixture
def folders(webui, tmp_path, monkeypatch):
    """The WebUI's folders, which exist and are empty."""
    names = {
        "script_path": "program", "data_path": "data", "extensions_dir": "data/extensions",
    }
    for name, folder in names.items():
        (tmp_path / folder).mkdir(parents=True)
        monkeypatch.setattr(webui.ours("host"), name, str(tmp_path / folder))
    return tmp_path


def test_lists_of_other_programs_are_found_where_they_are(webui, folders, host):
    """The WebUI's own, and those of Dynamic Prompts; what is not there is not named."""
    assert host.other_lists == {}
    beside = folders / "program" / "wildcards"
    its_own = folders / "data" / "extensions" / "sd-dynamic-prompts" / "wildcards"
    chosen = folders / "chosen"
    for folder in (beside, its_own, chosen):
        folder.mkdir(parents=True)
        if folder == chosen:
            webui.opts.data["wildcard_dir"] = str(chosen)
        assert host.other_lists == {"wildcards": folder}
    webui.opts.data["wildcard_dir"] = str(folders / "gone")
    assert host.other_lists == {"wildcards": its_own}
    for name in ("program", "data"):
        (folders / name / "interrogate").mkdir()
        assert host.other_lists["interrogate"] == folders / name / "interrogate"


def test_strangers_can_not_move_the_folder_of_wildcards(webui, folders, host, monkeypatch):
    """What that extension's settings said at the start holds."""
    (folders / "owner").mkdir()
    webui.opts.data["wildcard_dir"] = str(folders / "owner")
    webui.ours("settings").remember()
    monkeypatch.setattr(webui.flags, "disable_extension_access", True)
    webui.opts.data["wildcard_dir"] = "/"
    assert host.other_lists == {"wildcards": folders / "owner"}


SETS = ["all", "no artists"]


def test_arguments_of_settings_fit_updates_too(webui):
    """AUTOMATIC1111 repeats them whenever a page is loaded, and Gradio 3 refuses some."""
    for row in SETTINGS.values():
        component, arguments = webui.ours("settings")._component(row, lambda: SETS)
        arguments = arguments() if callable(arguments) else arguments
        update = getattr(getattr(component, "func", component), "update", None)
        if update is not None:
            update(**{key: value for key, value in arguments.items() if key != "precision"})


def test_strangers_can_not_name_places_in_the_settings(webui, host, monkeypatch):
    """What the owner had set at the start holds, for whatever names a place; the rest changes."""
    webui.opts.data["clip_interrogator_ext_models_dir"] = "/owner"
    settings = webui.ours("settings")
    settings.remember()
    monkeypatch.setattr(webui.flags, "disable_extension_access", True)
    changed = {
        "models_dir": "/", "clip": "ViT-L-14=/etc/passwd", "captioner": "/", "mode": "fast",
        "wildcards_dir": "/", "interrogate_dir": "/", "vocabulary": "no artists",
    }
    for key, value in changed.items():
        webui.opts.data[f"clip_interrogator_ext_{key}"] = value
    assert settings.setting("models_dir") == "/owner"
    assert settings.setting("clip") == SETTINGS["clip"].default
    assert settings.setting("captioner") == SETTINGS["captioner"].default
    assert settings.setting("wildcards_dir") is settings.setting("interrogate_dir") is None
    assert settings.setting("mode") == "fast"
    assert settings.setting("vocabulary") == "no artists"
    assert host.chosen_models == {SETTINGS["clip"].default, SETTINGS["captioner"].default}


def test_trust_follows_the_webuis_flag(webui, host, monkeypatch):
    assert host.trusted
    monkeypatch.setattr(webui.flags, "disable_extension_access", True)
    assert not host.trusted


# Memory


class Network:
    """A network whose parameters are on a device."""

    def __init__(self, device="cpu"):
        self.device = device

    def parameters(self):
        return iter([SimpleNamespace(device=torch.device(self.device))])

    def to(self, device):
        self.device = device


class Checkpoint(Network):
    """A checkpoint in full memory."""

    lowvram = False


GB = 1 << 30


@pytest.fixture
def small_gpu(a1111, monkeypatch):
    """AUTOMATIC1111 with a checkpoint on a GPU of which 2 GB are free."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (2 * GB, 8 * GB))
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda _device: 0)
    monkeypatch.setattr(a1111.of_host("devices"), "_interrogate", torch.device("cuda"))
    a1111.of_host("sd_models").model_data.sd_model = Checkpoint("cuda")
    return a1111


def moves(webui):
    return [event for event in webui.events if "checkpoint" in event or "lowvram" in event]


def test_the_checkpoint_makes_room_and_comes_back(small_gpu):
    host, network = small_gpu.ours("host").WebuiHost(), Network()
    with host.exclusive("x"):
        for _ in range(3):
            with host.on_device(network, 4 * GB):
                network.to("cuda")
                assert moves(small_gpu) == ["checkpoint to cpu"]
    assert moves(small_gpu) == ["checkpoint to cpu", "checkpoint to device"]
    assert network.device == "cpu"  # there is no room for both
    assert jobs_of(small_gpu).index("checkpoint to device") < jobs_of(small_gpu).index("release")


def test_the_checkpoint_comes_back_after_failures(small_gpu):
    host = small_gpu.ours("host").WebuiHost()
    with (
        pytest.raises(KeyboardInterrupt), host.exclusive("x"), host.on_device(Network(), 4 * GB)
    ):
        raise KeyboardInterrupt
    assert moves(small_gpu) == ["checkpoint to cpu", "checkpoint to device"]
    assert is_free(small_gpu.lock)


def test_where_there_is_room_nothing_moves(small_gpu):
    host = small_gpu.ours("host").WebuiHost()
    with host.exclusive("x"), host.on_device(Network(), GB // 2):
        pass
    with host.exclusive("x"), host.on_device(Network("cuda"), 7 * GB):  # is there already
        pass
    assert moves(small_gpu) == []


def test_a_checkpoint_that_lies_on_the_cpu_stays_there(small_gpu):
    small_gpu.of_host("sd_models").model_data.sd_model.to("cpu")
    host = small_gpu.ours("host").WebuiHost()
    with host.exclusive("x"), host.on_device(Network(), 4 * GB):
        pass
    assert moves(small_gpu) == []


def test_lowvram_sends_its_module_away(small_gpu):
    small_gpu.of_host("sd_models").model_data.sd_model.lowvram = True
    host = small_gpu.ours("host").WebuiHost()
    with host.exclusive("x"), host.on_device(Network(), GB // 2):
        pass
    assert moves(small_gpu) == ["lowvram to cpu"]


def test_on_a_cpu_nothing_moves(small_gpu):
    small_gpu.opts.data["clip_interrogator_ext_device"] = "cpu"
    host = small_gpu.ours("host").WebuiHost()
    with host.exclusive("x"), host.on_device(Network(), 4 * GB):
        pass
    assert moves(small_gpu) == []


def test_forges_manager_loads_once_in_a_run(forge_gpu):
    host, network = forge_gpu.ours("host").WebuiHost(), Network()
    manager = importlib.import_module("backend.memory_management")
    for _ in range(2):
        with host.exclusive("x"):
            for _ in range(3):
                with host.on_device(network, GB):
                    assert [one.model.model for one in manager.current_loaded_models] == [network]
    assert forge_gpu.events.count("load") == 2


def test_what_forge_evicted_is_loaded_again(forge_gpu):
    host, network = forge_gpu.ours("host").WebuiHost(), Network()
    manager = importlib.import_module("backend.memory_management")
    with host.exclusive("x"):
        with host.on_device(network, GB):
            manager.current_loaded_models.clear()
        with host.on_device(network, GB):
            assert len(manager.current_loaded_models) == 1


def test_forges_manager_is_not_asked_for_a_cpu(forge):
    host = forge.ours("host").WebuiHost()
    with host.exclusive("x"), host.on_device(Network(), GB):
        pass
    assert "load" not in forge.events


def test_forge_forgets_a_network_that_leaves(forge_gpu):
    host, network = forge_gpu.ours("host").WebuiHost(), Network()
    manager = importlib.import_module("backend.memory_management")
    with host.on_device(network, GB):
        pass
    host.off_device(network)
    host.off_device(network)
    assert manager.current_loaded_models == []
    assert forge_gpu.events.count("unload") == 1
    assert host._flavour._patchers == {}


def test_forge_follows_a_change_of_the_device(forge_gpu):
    host, network = forge_gpu.ours("host").WebuiHost(), Network()
    manager = importlib.import_module("backend.memory_management")
    for device in ("meta", "cuda:1"):
        forge_gpu.opts.data["clip_interrogator_ext_device"] = device
        with host.on_device(network, GB):
            loaded = [str(one.model.load_device) for one in manager.current_loaded_models]
            assert loaded == [device]


def test_forge_is_told_the_device_by_the_name_it_uses(forge_gpu, monkeypatch):
    """It evicts only what lies on a device of the very same name."""
    host, network = forge_gpu.ours("host").WebuiHost(), Network()
    manager = importlib.import_module("backend.memory_management")
    monkeypatch.setattr(manager, "_device", torch.device("cuda:0"))
    forge_gpu.opts.data["clip_interrogator_ext_device"] = "cuda"
    with host.on_device(network, GB):
        [loaded] = manager.current_loaded_models
    assert str(loaded.model.load_device) == "cuda:0"


def test_a_second_try_gets_all_the_room_there_is(small_gpu):
    """The checkpoint leaves even where there seemed to be room, and comes back."""
    host = small_gpu.ours("host").WebuiHost()
    with host.exclusive("x"):
        with host.on_device(Network(), GB // 2):
            assert moves(small_gpu) == []
        host.make_room()
        assert moves(small_gpu) == ["checkpoint to cpu"]
    assert moves(small_gpu) == ["checkpoint to cpu", "checkpoint to device"]


def test_a_second_try_in_forge_unloads_everything(forge_gpu):
    forge_gpu.ours("host").WebuiHost().make_room()
    assert "unload all" in forge_gpu.events


# The loaded checkpoint


def load(webui, checkpoint):
    webui.of_host("sd_models").model_data.sd_model = checkpoint


def test_without_a_checkpoint_there_is_no_kind_and_no_count(host):
    assert host.checkpoint_kind() is None
    assert host.count_tokens("a castle") is None


@pytest.mark.parametrize(
    ("attribute", "kind"),
    [
        ("is_sd1", "SD 1.x"), ("is_sd2", "SD 2.x"), ("is_sdxl", "SDXL"), ("is_ssd", "SDXL"),
        ("is_sd3", "SD 3"),
    ],
)
def test_the_kind_of_a_checkpoint(webui, host, attribute, kind):
    load(webui, SimpleNamespace(**{attribute: True}))
    assert host.checkpoint_kind() == kind
    assert kind in catalog.GENERATORS


def test_flux_is_known_by_its_engine(forge):
    flux = type("Flux", (), {"is_sd1": False, "is_sdxl": False})
    load(forge, flux())
    assert forge.ours("host").WebuiHost().checkpoint_kind() == "Flux"


def test_an_unknown_checkpoint_has_no_kind(webui, host):
    load(webui, SimpleNamespace())
    assert host.checkpoint_kind() is None


def test_tokens_are_counted_as_the_checkpoint_does(webui, host):
    load(webui, SimpleNamespace(get_prompt_lengths_on_ui=lambda text: (len(text.split()), 75)))
    assert host.count_tokens("a castle") == (2, 75)


def test_a_count_that_fails_is_none(webui, host, monkeypatch):
    def fail(_text):
        raise RuntimeError

    load(webui, SimpleNamespace(get_prompt_lengths_on_ui=fail))
    if webui.flavour == "a1111":
        hijack = webui.of_host("sd_hijack").model_hijack
        monkeypatch.setattr(hijack, "get_prompt_lengths", lambda _text: ("-", "-"))
    assert host.count_tokens("a castle") is None


# Settings


@pytest.fixture
def settings(webui):
    """Our settings, shown in the WebUI's Settings tab."""
    settings = webui.ours("settings")
    settings.add_section(lambda: webui.events.append("folders"), lambda: SETS)
    return settings


def test_every_setting_is_in_our_section_and_can_be_drawn(webui, settings):
    assert len(webui.opts.data_labels) == len(SETTINGS)
    for key, row in SETTINGS.items():
        option = webui.opts.data_labels[f"clip_interrogator_ext_{key}"]
        assert option.section == ("clip_interrogator_ext", "Interrogator")
        assert row.help in option.comment_after
        assert option.default is not None  # the WebUI draws no nullable option
        json.dumps(option.default)
        arguments = option.component_args
        with gr.Blocks():
            option.component(
                label=option.label, value=option.default,
                **(arguments() if callable(arguments) else arguments),
            )
        assert settings.setting(key) == row.default


def test_sets_of_word_lists_are_read_when_the_settings_are_shown(webui, settings):
    """The saved one is always among them: else nothing could be saved any more."""
    option = webui.opts.data_labels["clip_interrogator_ext_vocabulary"]
    assert option.component is gr.Dropdown
    assert option.component_args() == {"choices": SETS}
    SETS.append("mine")
    try:
        assert option.component_args() == {"choices": ["all", "no artists", "mine"]}
    finally:
        SETS.remove("mine")
    webui.opts.data["clip_interrogator_ext_vocabulary"] = "gone"
    assert option.component_args() == {"choices": [*SETS, "gone"]}


def test_a_setting_that_was_never_shown_has_its_default(webui):
    assert webui.ours("settings").setting("mode") == "best"


@pytest.mark.parametrize(
    ("key", "saved", "value"),
    [
        ("mode", "fast", "fast"), ("mode", "nonsense", "best"), ("mode", "", "best"),
        ("chunk_size", 16.0, 16), ("chunk_size", 16.5, 64), ("chunk_size", 0, 64),
        ("chunk_size", "many", 64), ("chunk_size", float("nan"), 64), ("chunk_size", 1e400, 64),
        ("max_flavors", "", None), ("max_flavors", " 12 ", 12), ("max_flavors", "0", 0),
        ("max_flavors", "many", None), ("token_budget", None, None), ("token_budget", "75", 75),
        ("chunk_size", True, 64), ("max_flavors", True, None), ("caption_beams", False, 1),
        ("low_memory", True, True), ("low_memory", "yes", False),
        ("device", " ", None), ("device", "cuda:1", "cuda:1"), ("device", 5, None),
        ("clip", "", catalog.DEFAULT_BACKBONE), ("clip", "demo", "demo"),
        ("captioner", ["x"], catalog.DEFAULT_CAPTIONER),
        ("vocabulary", "", "all"), ("vocabulary", "no artists", "no artists"),
        ("leave_out", " ", None), ("leave_out", "a, b", "a, b"), ("replacements", 3, None),
    ],
)
def test_a_saved_value_is_read_as_its_row_wants_it(webui, settings, key, saved, value):
    webui.opts.data[f"clip_interrogator_ext_{key}"] = saved
    answer = settings.setting(key)
    assert answer == value and type(answer) is type(value)


def test_folders_apply_at_once_and_places_are_the_owners(webui, settings):
    for count, key in enumerate(("lists_dir", "wildcards_dir", "interrogate_dir"), 1):
        webui.opts.set(f"clip_interrogator_ext_{key}", "/lists")
        assert webui.events.count("folders") == count
    for key in ("models_dir", "lists_dir", "wildcards_dir", "interrogate_dir"):
        assert not webui.opts.set(f"clip_interrogator_ext_{key}", "/x", is_api=True)
        assert f"clip_interrogator_ext_{key}" in webui.opts.restricted_opts


# Who may call


def request(app=None, basic=None, header=None, cookie=None):
    if basic is not None:
        header = "Basic " + base64.b64encode(basic.encode()).decode()
    headers = {} if header is None else {"authorization": header}
    return SimpleNamespace(
        headers=headers, app=app or SimpleNamespace(),
        cookies={} if cookie is None else {cookie[0]: cookie[1]},
    )


GRADIO_3 = SimpleNamespace(tokens={"secret": "user"})
GRADIO_4 = SimpleNamespace(tokens={"secret": "user"}, cookie_id="id")
API = {"api_auth": "ann:a,bob:b"}
PAGE = {"gradio_auth": "eve:e"}


@pytest.mark.parametrize(
    ("flags", "asked", "answer"),
    [
        ({}, request(), True),
        ({}, request(basic="ann:wrong"), True),
        (API, request(), False),
        (API, request(basic="ann:a"), True),
        (API, request(basic="bob:b"), True),
        (API, request(basic="ann:b"), False),
        (API, request(basic="ann"), False),
        (API, request(basic=""), False),
        (API, request(basic=":"), False),
        ({"api_auth": "ünn:pässword"}, request(basic="ünn:pässword"), True),
        ({"api_auth": "ann:a:b"}, request(basic="ann:a:b"), True),
        (PAGE, request(), False),
        (PAGE, request(basic="eve:e"), False),
        (PAGE, request(GRADIO_3, cookie=("access-token", "secret")), True),
        (PAGE, request(GRADIO_3, cookie=("access-token-unsecure", "secret")), True),
        (PAGE, request(GRADIO_3, cookie=("access-token", "wrong")), False),
        (PAGE, request(GRADIO_4, cookie=("access-token", "secret")), False),
        (PAGE, request(GRADIO_4, cookie=("access-token-id", "secret")), True),
        (PAGE, request(GRADIO_4, cookie=("access-token-unsecure-id", "secret")), True),
        ({**API, **PAGE}, request(GRADIO_3, basic="ann:a"), True),
        ({**API, **PAGE}, request(GRADIO_3, cookie=("access-token", "secret")), True),
        ({**API, **PAGE}, request(GRADIO_3, basic="eve:e"), False),
        (API, request(header="Basic"), False),
        (API, request(header="Basic !!!"), False),
        (API, request(header="Basic //79/A=="), False),
        (API, request(header="Bearer abc"), False),
        (API, request(header="Basic ä"), False),
        ({"gradio_auth": " , "}, request(), True),  # the WebUI has no login then either
    ],
)
def test_logins(webui, monkeypatch, flags, asked, answer):
    for flag, value in flags.items():
        monkeypatch.setattr(webui.flags, flag, value)
    assert webui.ours("login").guard()(asked) is answer


def test_a_password_file_closes_the_routes(webui, monkeypatch, tmp_path):
    """Also where it can't be read."""
    for name in ("passwords.txt", "nowhere.txt"):
        (tmp_path / "passwords.txt").write_text("eve:e\n", encoding="utf-8")
        monkeypatch.setattr(webui.flags, "gradio_auth_path", str(tmp_path / name))
        allowed = webui.ours("login").guard()
        assert not allowed(request())
        assert allowed(request(GRADIO_3, cookie=("access-token", "secret")))


# Sending and receiving


class Button:
    """A button that remembers what a click does."""

    def __init__(self):
        self.clicks = []

    def click(self, **arguments):
        self.clicks.append(arguments)
        return SimpleNamespace(then=self.click)


def is_no_change(value):
    return value == gr.update()


@pytest.fixture
def fields(webui):
    """The fields of the WebUI's tabs, by names in place of components."""
    prompts = [("steps", "Steps"), ("prompt", "Prompt"), ("negative", "Negative prompt")]
    fields = webui.of_host("infotext_utils").paste_fields
    fields["txt2img"] = {"init_img": None, "fields": prompts}
    fields["img2img"] = {"init_img": "img2img image", "fields": prompts}
    fields["inpaint"] = {"init_img": "inpaint image", "fields": prompts}
    fields["extras"] = {"init_img": "extras image", "fields": None}
    return fields


def click(webui, target):
    """Connect a button to a target; return what it sends, where to, and its scripts."""
    button = Button()
    boxes = SimpleNamespace(image="our image", prompt="our prompt", negative="our negative")
    chosen = {one.name: one for one in webui.ours("sending").targets()}[target]
    chosen.connect(button, boxes)
    sending = button.clicks[0]
    return sending, [one["_js"] for one in button.clicks[1:]]


@pytest.mark.parametrize(
    ("target", "outputs", "scripts"),
    [
        ("txt2img", ["prompt", "negative"], ["recalculate_prompts_txt2img", "switch_to_txt2img"]),
        (
            "img2img", ["prompt", "negative", "img2img image"],
            ["recalculate_prompts_img2img", "switch_to_img2img"],
        ),
        (
            "inpaint", ["prompt", "negative", "inpaint image"],
            ["recalculate_prompts_img2img", "switch_to_inpaint"],
        ),
        ("extras", ["extras image"], ["switch_to_extras"]),
    ],
)
def test_no_other_field_is_wired(webui, fields, target, outputs, scripts):
    sending, found = click(webui, target)
    assert sending["outputs"] == outputs
    assert found == scripts


def test_the_text_arrives_exactly(webui, fields):
    text = "a castle \\(old\\)\n(castle:1.2), (hill:1.3), (sky:1.1) "
    sent = click(webui, "txt2img")[0]["fn"](text, "blurry")
    assert sent == [text, "blurry"]


def test_what_is_empty_leaves_the_field_as_it_is(webui, fields):
    sent = click(webui, "img2img")[0]["fn"]("", "  ", None)
    assert all(is_no_change(value) for value in sent)


def test_a_picture_is_sent_with_all_that_it_holds(webui, fields):
    """What is clear stays clear, and the generation data is there for the WebUI to read."""
    texts = PngInfo()
    texts.add_text("parameters", "a fox")
    data = BytesIO()
    Image.new("RGBA", (4, 3), (255, 0, 0, 7)).save(data, "PNG", pnginfo=texts)
    sent = click(webui, "extras")[0]["fn"](Posted(data_url(data.getvalue())))
    assert (sent.mode, sent.size, sent.getpixel((0, 0))) == ("RGBA", (4, 3), (255, 0, 0, 7))
    assert sent.info == {"parameters": "a fox"}


def test_a_picture_that_can_not_be_read_is_not_sent(webui, fields):
    """The texts are, and the other tab keeps the picture that it has."""
    broken = Posted(data_url(b"no picture"))
    with warnings.catch_warnings(record=True):
        sent = click(webui, "img2img")[0]["fn"]("a fox", "", broken)
    assert sent[0] == "a fox"
    assert is_no_change(sent[2])


def test_a_tab_that_is_not_there_is_no_target(webui, fields):
    del fields["extras"]
    assert [one.name for one in webui.ours("sending").targets()] == [
        "txt2img", "img2img", "inpaint",
    ]


def draw_page(webui):
    """Draw what our buttons stand beside, as the WebUI does."""
    receiving = webui.ours("receiving")
    with gr.Blocks() as page:
        for tab in ("txt2img", "img2img", "extras"):
            receiving.on_after_component(gr.Gallery(), elem_id=f"{tab}_gallery")
            with gr.Row():
                receiving.on_after_component(gr.Button(), elem_id=f"{tab}_send_to_extras")
        receiving.on_after_component(gr.Button(), elem_id="extras_tab")  # another extension's
        receiving.on_after_component(gr.Image(), elem_id="pnginfo_image")
        for _ in range(2):
            receiving.on_after_component(gr.Button(), elem_id="extras_tab")
        receiving.on_after_component(gr.HTML())
    return receiving, page


BUTTON_IDS = [f"{tab}_send_to_cliext" for tab in ("txt2img", "img2img", "extras", "pnginfo")]


def test_a_button_stands_beside_each_row(webui):
    _, page = draw_page(webui)
    ids = [getattr(block, "elem_id", None) for block in page.blocks.values()]
    assert [one for one in ids if one] == BUTTON_IDS


def test_a_hidden_tab_gets_no_buttons(webui):
    webui.opts.hidden_tabs = ["Interrogator"]
    _, page = draw_page(webui)
    assert not [block for block in page.blocks.values() if getattr(block, "elem_id", None)]


def test_the_buttons_fill_our_image_box(webui, monkeypatch):
    receiving, _ = draw_page(webui)
    buttons = {name: Button() for name in receiving._buttons}
    receiving._buttons.update(buttons)
    receiving.connect(SimpleNamespace(image="our image"))
    for name, button in buttons.items():
        sending, opening = button.clicks
        assert sending["outputs"] == ["our image"]
        assert sending["inputs"] == [receiving._sources[name]]
        assert sending["fn"](["picture"]) in ("picture", ["picture"])
        assert opening["_js"] == "cliext_open"
    receiving.forget()
    assert not receiving._buttons and not receiving._sources


# Registering, the tab, the doorway


@pytest.fixture
def faces(monkeypatch):
    """A tab and routes that remember how they were made."""
    made = SimpleNamespace(tabs=[], routes=[])
    tab = importlib.import_module("clip_interrogator_ext.faces.tab")

    def draw(service, surroundings):
        made.tabs.append((service, surroundings))
        return SimpleNamespace(image=gr.Image(), prompt=None, negative=None)

    api = SimpleNamespace(add_routes=lambda *_asked, **named: made.routes.append(named))
    package = importlib.import_module("clip_interrogator_ext.faces")
    monkeypatch.setattr(tab, "draw", draw)
    monkeypatch.setattr(package, "api", api, raising=False)
    monkeypatch.setitem(sys.modules, "clip_interrogator_ext.faces.api", api)
    return made


def call(webui, name, *arguments):
    listed = webui.callbacks.callback_map[f"callbacks_{name}"]
    return [one.callback(*arguments) for one in listed]


def load_ui(webui):
    """Do what the WebUI does at a start and at each reload; return our tab."""
    call(webui, "script_unloaded")
    webui.callbacks.clear_callbacks()
    load_doorway()
    call(webui, "before_ui")
    call(webui, "ui_settings")
    [[tab]] = call(webui, "ui_tabs")
    call(webui, "app_started", None, FastAPI())
    return tab


def load_doorway(name="clip_interrogator_ext.py", path=ROOT / "scripts/clip_interrogator_ext.py"):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_start_and_a_reload(webui, faces):
    """The tab and the routes are made anew, for the same service."""
    page, title, name = load_ui(webui)
    assert isinstance(page, gr.Blocks) and (title, name) == ("Interrogator", "cliext")
    load_ui(webui)
    assert len(faces.tabs) == len(faces.routes) == 2
    assert faces.tabs[0][0] is faces.tabs[1][0] is webui.ours().service()
    assert faces.tabs[0][1].setting("mode") == "best"
    assert all(len(one) <= 1 for one in webui.callbacks.callback_map.values())


def test_the_webui_keeps_no_values_of_our_boxes(webui, faces):
    """They begin with what our settings say, not with what they held at the first start."""
    page, _, _ = load_ui(webui)
    assert page.blocks
    assert all(block.do_not_save_to_config for block in page.blocks.values())


def test_registering_again_changes_nothing(webui, faces):
    load_ui(webui)
    for _ in range(3):
        webui.ours().register()
        load_doorway("somebody_elses_name")
    assert {len(one) for one in webui.callbacks.callback_map.values()} == {1}


def test_folders_reach_the_service(webui, faces, tmp_path, monkeypatch):
    load_ui(webui)
    seen = []
    monkeypatch.setattr(webui.ours().service(), "use_folders", lambda **all: seen.append(all))
    webui.opts.set("clip_interrogator_ext_lists_dir", str(tmp_path))
    none = {"cache_dir": None, "wildcards_dir": None, "interrogate_dir": None}
    assert seen == [{**none, "lists_dir": str(tmp_path)}]


def test_the_settings_offer_the_services_sets(webui, faces, monkeypatch, caplog):
    """Sets that can't be read cost the WebUI's settings nothing."""
    load_ui(webui)
    option = webui.opts.data_labels["clip_interrogator_ext_vocabulary"]
    offered = option.component_args()["choices"]
    assert offered == list(webui.ours().service().word_sets())
    assert offered[0] == "all"

    def fail():
        raise BadWordList("The sets can't be read.")

    monkeypatch.setattr(webui.ours().service(), "word_sets", fail)
    assert option.component_args() == {"choices": ["all"]}
    assert "The sets can't be read." in caplog.text


def test_a_tab_that_fails_leaves_a_sentence(webui, faces, monkeypatch, caplog):
    tab = importlib.import_module("clip_interrogator_ext.faces.tab")

    def fail(*_asked):
        with gr.Blocks(), gr.Row():
            raise RuntimeError("no luck")

    monkeypatch.setattr(tab, "draw", fail)
    page, _, _ = load_ui(webui)
    values = [getattr(block, "value", "") or "" for block in page.blocks.values()]
    assert any("could not start (RuntimeError: no luck)" in value for value in values)
    assert "no luck" in caplog.text


def test_the_doorway_by_another_folder_and_the_packages_own_name(webui, monkeypatch):
    """Loaded as the package's name, the file gives the package its place back."""
    link = webui.ours("notices")
    assert link.OURS == ROOT
    package = sys.modules["clip_interrogator_ext"]
    path = ROOT / "scripts" / "clip_interrogator_ext.py"
    spec = importlib.util.spec_from_file_location("clip_interrogator_ext", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "clip_interrogator_ext", module)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one not in ("", str(ROOT))])
    spec.loader.exec_module(module)
    replaced = sys.modules["clip_interrogator_ext"]
    assert replaced.__path__ == package.__path__
    assert replaced.get_models is module.get_models
    assert {len(one) for one in webui.callbacks.callback_map.values()} == {1}


def test_scripts_get_a_prompt_by_the_doorway(webui, picture, monkeypatch):
    """Outside a generation in a job of our own; inside one without a trace."""
    doorway = load_doorway("anything")
    webui.opts.data["clip_interrogator_ext_captioner"] = "demo"
    assert "ViT-L-14/openai" in doorway.get_models()
    text = doorway.image_to_prompt(picture, "fast", "demo")
    assert isinstance(text, str) and text
    assert "lock" in webui.events
    webui.events.clear()
    inside = []
    in_a_generation(webui, lambda: inside.append(doorway.image_to_prompt(picture, "fast", "demo")))
    assert inside == [text]
    in_a_generation(webui, doorway.unload)
    assert not {"lock", "end", "release"} & set(webui.events)
    assert webui.ours().service().status().loaded == ()
    with pytest.raises(BadOption):
        doorway.image_to_prompt(picture, "nonsense", "demo")


def test_the_webuis_interrupt_ends_a_run(webui, picture):
    """Interrupt ends our job, and the lock is free for the next."""
    service = webui.ours().service()
    webui.opts.data["clip_interrogator_ext_captioner"] = "demo"
    progress = service.host.progress

    def stop(label, done, total):
        progress(label, done, total)
        webui.state.interrupt()

    service.host.progress = stop
    setting = webui.ours("settings").setting
    try:
        answer = service.interrogate(
            picture, interrogate_options(setting, mode="best"), model_options(setting, ("demo",)),
        )
    except Interrupted:
        pass
    else:
        assert answer.interrupted
    assert is_free(webui.lock)
    assert not webui.state.interrupted


def test_a_run_outlives_a_reload_of_the_ui(webui, picture):
    """The routes of the new page follow and stop what the old one has begun."""
    load_ui(webui)
    service = webui.ours().service()
    setting = webui.ours("settings").setting
    reached, go_on = threading.Event(), threading.Event()
    progress = service.host.progress

    def hold(label, done, total):
        progress(label, done, total)
        reached.set()
        go_on.wait(300)

    service.host.progress = hold
    outcome = []

    def ask():
        try:
            outcome.append(service.interrogate(
                picture, interrogate_options(setting, mode="style"),
                model_options(setting, ("demo",)), "mine",
            ))
        except Interrupted as stopped:
            outcome.append(stopped)

    asking = threading.Thread(target=ask)
    asking.start()
    assert reached.wait(60)
    load_ui(webui)
    app = FastAPI()
    call(webui, "app_started", None, app)
    client = TestClient(app)
    status = client.get("/interrogator/status").json()
    assert [run["task"] for run in status["runs"]] == ["mine"]
    assert client.post("/interrogator/interrupt", json={"task": "mine"}).json()["interrupted"]
    go_on.set()
    asking.join(120)
    assert isinstance(outcome[0], Interrupted) or outcome[0].interrupted
    while service.status().runs:
        time.sleep(0.01)
    assert is_free(webui.lock)
    assert webui.state.job == ""
    service.host.progress = progress
    assert client.post("/interrogator/unload", json={}).status_code == 200


# Notices


def extension(folder, enabled=True):
    return SimpleNamespace(
        name=folder.name, canonical_name=folder.name.lower(), path=str(folder), enabled=enabled
    )


def test_all_is_well(webui):
    webui.of_host("extensions").extensions.append(extension(ROOT))
    assert list(webui.ours("notices").notices()) == []


def test_a_neighbour_is_named(webui, tmp_path):
    """By its folder's name or by its doorway; one that is disabled is none."""
    listed = webui.of_host("extensions").extensions
    notices = webui.ours("notices")
    (tmp_path / "copy" / "scripts").mkdir(parents=True)
    (tmp_path / "copy" / "scripts" / "clip_interrogator_ext.py").touch()
    for name in ("clip-interrogator-ext", "copy"):
        listed[:] = [extension(tmp_path / name, enabled=False)]
        assert list(notices.notices()) == []
        listed[:] = [extension(ROOT), extension(tmp_path / name)]
        [sentence] = notices.notices()
        assert name in sentence and "Disable one of them in the Extensions tab" in sentence


def test_an_update_asks_for_a_restart(webui, monkeypatch):
    notices = webui.ours("notices")
    monkeypatch.setattr(notices, "_loaded_files", frozenset())
    [sentence] = notices.notices()
    assert "Stop the WebUI and start it again" in sentence
    monkeypatch.setattr(notices, "_version_on_disk", lambda: "9.9")
    [sentence] = notices.notices()
    assert "9.9 is installed" in sentence


def test_a_missing_package_comes_with_the_command(webui, monkeypatch):
    monkeypatch.setitem(packages._ALL, "no_such_module", "no-such-package")
    [sentence] = webui.ours("notices").notices()
    assert f'"{sys.executable}" -m pip install no-such-package torch==' in sentence
