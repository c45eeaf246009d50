# SPDX-License-Identifier: Apache-2.0
"""What happens, in the few words of a story's line."""


def brief(host, what, *about):
    if what == "order":
        return short(about[0])
    if what == "work":
        return type(host.works[about[0]]).__name__
    if what == "thread":
        return type(host.threads[about[0]][0]).__name__
    return ""


def short(message):
    words = [type(message).__name__.removeprefix("Order")]
    if hasattr(message, "step"):
        words.append(str(message.step))
    if hasattr(message, "faults") and message.faults:
        words.append("with faults")
    words.append(getattr(message, "restore", None) or message.snapshot)
    return f"{' '.join(filter(None, words))} ({message.host})"
