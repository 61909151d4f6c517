"""The reviewed cases most like a task: which they are, and the HTML that shows them."""

import base64
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from tasks.schema import parse_label_config
from tasks.similar import BLOCK, MARK, address, most_similar, to_html
from tasks.why import load_phrases

SCHEMA = parse_label_config(
    """<View><Image name="image" value="$image"/>
    <Choices name="margin" toName="image" model_weight="0.02"><Choice value="smooth"/><Choice value="irregular"/>
    </Choices>
    <Rating name="quality" toName="image" model_weight="0.03"/>
    <Choices name="bom" toName="image" model_weight="0.9"><Choice value="benign"/>
    <Choice value="malignant" alias="m"/></Choices>
    <Choices name="foci" toName="image" choice="multiple" model_weight="0.05"><Choice value="rim"/>
    <Choice value="punctate"/></Choices></View>"""
)
PHRASES = load_phrases()


class Page(HTMLParser):
    """What a browser makes of the HTML: its pictures, and its text by the tag it stands in."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.pictures: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.text: list[tuple[str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attributes))
        elif tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attributes))

    def handle_data(self, text: str) -> None:
        self.text.append((self.open[-1], text))


@pytest.mark.parametrize("rows", [7, BLOCK + 3])
def test_the_nearest_are_those_of_scikit_learn(rows: int) -> None:
    rng = np.random.default_rng(0)
    points, reviewed = (rng.normal(size=(count, 6)).astype(np.float32) for count in (rows, 40))
    expected = NearestNeighbors(n_neighbors=3, metric="cosine").fit(reviewed).kneighbors(points, return_distance=False)
    np.testing.assert_array_equal(most_similar(points, 5 * reviewed, 3), expected)


def test_equal_cases_come_in_their_order_and_few_are_enough() -> None:
    points = np.array([[1, 0], [0, 0]], dtype=np.float32)
    reviewed = np.array([[0, 1], [2, 0], [1, 0], [3, 0]], dtype=np.float32)
    assert most_similar(points, reviewed, 2).tolist() == [[1, 2], [0, 1]]
    assert most_similar(points, reviewed[:1], 3).tolist() == [[0], [0]]
    assert most_similar(points, reviewed[:0], 3).shape == (2, 0)


def test_each_case_has_its_picture_and_its_labels_the_heaviest_first() -> None:
    cases = [(812, {"margin": ["smooth"], "bom": ["m"], "quality": ["4"], "foci": []}), (77, {"bom": ["benign"]})]
    html = to_html(SCHEMA, cases, {812: "/data/upload/1/a.png"}, PHRASES)
    assert html.startswith(MARK)
    page = Page(html)
    assert page.open == []
    assert [picture["src"] for picture in page.pictures] == ["/data/upload/1/a.png"]
    assert page.pictures[0]["alt"] == "812 malignant"
    assert page.text == [
        ("div", "Reviewed cases most like this one"),
        ("b", "812 malignant"),
        ("figcaption", "quality “4”, smooth"),
        ("b", "77 benign"),
    ]
    assert to_html(SCHEMA, [], {}, PHRASES) == ""
    assert Page(to_html(SCHEMA, [(5, {})], {}, PHRASES)).text[1:] == [("b", "5")]


HOSTILE = st.text(st.characters(exclude_categories=["C"]), min_size=1) | st.sampled_from(
    ['"><script>alert(1)</script>', "' onerror='x", "&lt;b&gt;", "</figure></div>"]
)


@settings(deadline=None)
@given(HOSTILE, HOSTILE)
def test_nothing_in_a_label_or_an_address_becomes_html(label: str, picture: str) -> None:
    page = Page(to_html(SCHEMA, [(1, {"bom": [label], "margin": [label]})], {1: picture}, PHRASES))
    assert page.open == []
    assert [found["src"] for found in page.pictures] == [picture]
    assert "".join(text for tag, text in page.text if tag == "figcaption") == label
    assert {tag for tag, _ in page.text} <= {"div", "b", "figcaption"}


@pytest.mark.parametrize(
    ("image", "below", "found"),
    [
        ("/data/upload/1/a.png", "", "/data/upload/1/a.png"),
        ("/data/local-files/?d=a/b.png", "/ls", "/ls/data/local-files/?d=a/b.png"),
        ("/ls/data/upload/1/a.png", "/ls", "/ls/data/upload/1/a.png"),
        (" https://images.example.org/a.png?x=1&y=2", "/ls", "https://images.example.org/a.png?x=1&y=2"),
        ("//images.example.org/a.png", "", None),
        ("data:image/png;base64,AAAA", "", None),
        ("javascript:alert(1)", "", None),
        ("https:alert", "", None),
        ("file:///etc/passwd", "", None),
        ("a.png", "", None),
        ("", "", None),
    ],
)
def test_an_address_is_one_that_the_browser_may_ask_for(image: str, below: str, found: str | None) -> None:
    assert address(image, 7, below) == found


@pytest.mark.parametrize("uri", ["s3://bucket/a b/ü.png", "gs://bucket/a.png", "azure-blob://box/a.png"])
def test_an_object_of_a_storage_is_asked_of_label_studio(uri: str) -> None:
    path, _, encoded = str(address(uri, 7, "/ls")).partition("?fileuri=")
    assert path == "/ls/tasks/7/resolve/"
    assert base64.urlsafe_b64decode(encoded).decode() == uri
