"""Jobs: what to do when one is lost, and the notices that are still open."""

from __future__ import annotations

from bega_kiosk.content import Job, said
from bega_kiosk.desks import today
from bega_kiosk.pages.screen import Drawn, Key, Screen
from bega_kiosk.places import Known, Place, Tile, place_of_each


def places(known: Known) -> list[Place]:
    """Return the screens of this module."""
    return [
        Place("/jobs", "job.title", lambda screen: draw(screen, known), tile=Tile("tool", 100)),
        Place("/jobs/lost", "job.lost", draw_lost, parent="/jobs"),
        Place("/jobs/lost/bring", "job.lost", draw_bring, parent="/jobs/lost"),
        place_of_each(known, Job, "/jobs/notice/{job}", draw_job, "/jobs", lambda job: job.title),
    ]


def draw(screen: Screen, known: Known) -> Drawn:
    """Return the open notices."""
    text, language = screen.words.text, screen.words.language
    keys = [Key(text("job.lost"), screen.address("/jobs/lost"), "help")]
    jobs = [job for job in known.content.every(Job) if today(screen) <= job.until]
    keys += [Key(said(job.title, language), screen.address(f"/jobs/notice/{job.id}"), "tool") for job in jobs]
    example = [] if all(job.is_checked(today(screen)) for job in jobs) else [text("common.example")]
    return screen.choice(keys, " ".join([*example, text("job.warn")]))


def draw_lost(screen: Screen) -> Drawn:
    """Return what to do in the first days."""
    text = screen.words.text
    lines = [text("job.lost_why"), text("job.lost_cond"), text("job.where")]
    bring = Key(text("job.bring"), screen.address("/jobs/lost/bring"), "paper")
    return screen.answer(text("job.lost_when"), lines, [bring], [text("svc.example")])


def draw_bring(screen: Screen) -> Drawn:
    """Return what to bring to the agency."""
    text = screen.words.text
    things = [text("job.card"), text("job.studies"), text("job.work"), text("job.family"), text("job.doctor")]
    return screen.answer(text("job.bring"), things, notes=[text("svc.example")], is_list=True)


def draw_job(screen: Screen, _: Known, job: Job) -> Drawn:
    """Return one notice; one whose day has passed says until when it was open."""
    words = screen.words
    pay = words.text("job.pay", pay=words.number(job.pay_lei)) if job.pay_lei else words.text("job.pay_unknown")
    lines = [*(said(one, words.language) for one in job.about), pay, words.text("job.warn")]
    notes = [] if job.is_checked(today(screen)) else [words.text("common.example")]
    return screen.answer(words.text("job.until", date=words.day(job.until)), lines, notes=notes)
