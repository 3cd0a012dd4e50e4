"""A small stand-in for the WebUI's module of that name."""

import time
from types import SimpleNamespace

_events = []  # what happened, in its order


class OptionInfo:
    """As little of it as the tests need."""

    def __init__(
        self, default=None, label="", component=None, component_args=None, onchange=None,
        section=None, refresh=None, comment_before="", comment_after="", infotext=None,
        restrict_api=False, category_id=None,
    ):
        self.default, self.label, self.section = default, label, section
        self.component, self.component_args = component, component_args
        self.onchange, self.restrict_api = onchange, restrict_api
        self.comment_after = comment_after

    def info(self, info):
        self.comment_after += info
        return self


class _Options:
    def __init__(self):
        self.data, self.data_labels = {}, {}
        self.restricted_opts = {"outdir_samples"}
        self.hidden_tabs = []

    def add_option(self, key, info):
        self.data_labels[key] = info
        self.data.setdefault(key, info.default)

    def set(self, key, value, is_api=False, run_callbacks=True):
        if is_api and self.data_labels[key].restrict_api:
            return False
        self.data[key] = value
        if run_callbacks and self.data_labels[key].onchange is not None:
            self.data_labels[key].onchange()
        return True


class _State:
    skipped = interrupted = stopping_generation = False
    job = ""
    job_no = job_count = sampling_step = sampling_steps = 0
    textinfo = time_start = None

    def begin(self, job="(unknown)"):
        _events.append(f"begin {job}")
        self.job, self.job_count, self.job_no = job, -1, 0
        self.skipped = self.interrupted = self.stopping_generation = False
        self.sampling_step, self.textinfo, self.time_start = 0, None, time.time()

    def end(self):
        _events.append("end")
        self.job, self.job_count = "", 0

    def interrupt(self):
        self.interrupted = True


opts = _Options()
state = _State()
cmd_opts = SimpleNamespace(
    api_auth=None, gradio_auth=None, gradio_auth_path=None, clip_models_path=None,
    disable_extension_access=False, no_half=False, hide_ui_dir_config=False,
    cors_allow_origins=None, cors_allow_origins_regex=None,
)
