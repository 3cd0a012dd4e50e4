"""A small stand-in for the WebUI's module of that name."""

from modules.shared import _events

current_task = None
pending_tasks = {}
finished_tasks = []


def add_task_to_queue(id_job):
    _events.append(f"announce {id_job}")
    pending_tasks[id_job] = 0


def start_task(id_task):
    global current_task
    _events.append(f"start {id_task}")
    current_task = id_task
    pending_tasks.pop(id_task, None)


def finish_task(id_task):
    global current_task
    _events.append(f"finish {id_task}")
    current_task = None
    finished_tasks.append(id_task)
