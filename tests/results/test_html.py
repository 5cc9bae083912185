import re
from html.parser import HTMLParser

from results.fake_records import fake_records, fake_run

from unlearn_jax.results.comparison import comparison_tables
from unlearn_jax.results.html import Picture, Section, page

VOID = {"meta", "img", "br"}
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x01\x90\x00\x00\x00\x10"


class Strict(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags, self.images = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def made(**changes):
    records = fake_records(train=2, unlearn=1, evaluate=1)
    run = fake_run(**changes)
    tables = comparison_tables(records, run)
    picture = Picture(PNG, "Gap & cost", 'a "gap"')
    return page(run, [Section("class:3 <mlp>", ["ssd: fine"], tables, [picture])])


def test_the_page_is_balanced_and_self_contained():
    text = made()
    parser = Strict()
    parser.feed(text)
    parser.close()
    assert not parser.open
    assert text.startswith("<!DOCTYPE html>")
    assert not {"script", "link", "iframe"} & set(parser.tags)
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    assert "@import" not in text
    assert "url(" not in text


def test_pictures_are_inside_and_have_words():
    parser = Strict()
    parser.feed(made())
    (image,) = parser.images
    assert image["alt"] == 'a "gap"'
    assert image["src"].startswith("data:image/png;base64,")
    assert image["width"] == "240"


def test_the_page_says_scale_checks_command_and_environment():
    text = made(dirty=True, seconds=None)
    for part in (
        "smoke: shows that everything runs",
        "ssd: fine",
        "python -m experiments.compare --scale smoke",
        "CPU (x86_64, 2 cores)",
        "with uncommitted changes",
        "not finished",
        "class:3 &lt;mlp&gt;",
        'name="viewport"',
        "prefers-color-scheme: dark",
    ):
        assert part in text
