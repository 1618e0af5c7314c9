"""What the text and Matlab files of ImageNet say, and how a wrong line is reported."""
import io

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.io import savemat

from dataflows.sources import annotations
from dataflows.sources.annotations import devkit_synsets, id_list, solution, synset_list, synset_names
from helpers.imagenet_forms import CLASSES, IDS, PARENTS, WORDS, meta_mat

WNIDS = st.integers(0, 10**8 - 1).map("n{:08d}".format)
BOXES = st.lists(st.integers(0, 999), min_size=4, max_size=4).map(lambda box: " ".join(map(str, box)))
HEADER = "ImageId,PredictionString"
PARSERS = (synset_list, id_list, synset_names, solution)


def forms(text):
    """The ways in which editors save the same lines."""
    for end in ("\n", "\r\n"):
        content = text.replace("\n", end)
        for body in (content, content + end, content + 3 * end, content + " \t" + end):
            yield from (body.encode(), body.encode("utf-8-sig"))


@given(st.lists(WNIDS, min_size=1))
def test_a_list_of_wnids(wnids):
    assert all(synset_list(content, "x.txt") == wnids for content in forms("\n".join(wnids)))


@given(st.lists(st.integers(1, 1000), min_size=1))
def test_a_list_of_ids(ids):
    assert all(id_list(content, "x.txt") == ids for content in forms("\n".join(map(str, ids))))


@given(st.dictionaries(WNIDS, st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1),
                       min_size=1))
@example(WORDS)
def test_names_of_classes(names):
    text = "\n".join(f"{wnid} {words}" for wnid, words in names.items())
    assert all(synset_names(content, "x.txt") == names for content in forms(text))


@given(st.dictionaries(st.from_regex(r"[A-Za-z0-9_.ü-]+", fullmatch=True), st.tuples(WNIDS, st.lists(BOXES)),
                       min_size=1))
def test_a_solution(rows):
    text = "\n".join([HEADER, *(f"{name},{' '.join(f'{wnid} {box}' for box in boxes) or wnid}"
                                for name, (wnid, boxes) in rows.items())])
    expected = {name: wnid for name, (wnid, _) in rows.items()}
    for content in (text, text + " \n", text.replace("\n", "\r\n"), "\ufeff" + text):
        assert solution(content.encode(), "x.csv") == expected


def test_a_line_of_kaggles_solution():
    line = "ILSVRC2012_val_00000001,n01751748 111 108 433 498 n01751748 1 2 3 4 "  # with its space at the end
    assert solution(f"{HEADER}\n{line}\n".encode(), "x.csv") == {"ILSVRC2012_val_00000001": "n01751748"}


@pytest.mark.parametrize("parser, content, words", [
    (synset_list, "n01440764\nn0144076\n", "line 2: 'n0144076' must be a wnid"),
    (synset_list, "n01440764\n\nn01440764\n", "line 2: '' must be"), (synset_list, "", "line 1: '' must be"),
    (synset_list, "n01440764 tench", "line 1: 'n01440764 tench' must"), (synset_list, "N01440764", "must be a wnid"),
    (synset_list, "n0144076\u0664", "must be a wnid"), (synset_list, "a" * 1000, "'a{60}' must be"),
    (id_list, "1\r\n2.0\r\n", "line 2: '2.0' must be an ILSVRC2012_ID, a positive"), (id_list, "0", "must be an ILSV"),
    (id_list, "-1", "must be an ILSV"), (id_list, "9" * 5000, "must be an ILSV"), (id_list, "1 2", "must be an ILSV"),
    (synset_names, "n01440764 tench\nn01440764 fish\n", "line 2: 'n01440764 fish' comes twice"),
    (synset_names, "n01440764\n", "line 1: 'n01440764' lacks the name"),
    (synset_names, "tench n01440764\n", "line 1: 'tench' must be a wnid, a space"),
    (solution, "", "line 1: it must be the header"), (solution, "a,n01440764 1 2 3 4", "line 1: it must be the header"),
    (solution, f"{HEADER}\na\n", "line 2: 'a' must be an image's name, a comma and boxes"),
    (solution, f"{HEADER}\na,n01440764 1 2 3 4,b\n", "line 2: .* must be an image's name"),
    (solution, f"{HEADER}\na,\n", "line 2: 'a,' must be"), (solution, f"{HEADER}\n,n01440764 1 2 3 4\n", "line 2"),
    (solution, f"{HEADER}\na,n01440764 1 2 3\n", "line 2: .* each a wnid and four numbers"),
    (solution, f"{HEADER}\n\na,tench 1 2 3 4\n", "line 3: .* must be an image's name"),
    (solution, f"{HEADER}\na,n01440764 1 2 3 4\na,n01440764 1 2 3 4\n", "line 3: image a comes twice"),
    (solution, f"{HEADER}\na,n01440764 1 2 3 4 n01443537 1 2 3 4\n",
     "line 2: a has boxes of several classes, n01440764 and n01443537"),
    (solution, f'{HEADER}\n"a,n01440764 1 2 3 4\n', "x.file, line 2: it is not CSV"),
])
def test_a_wrong_line_is_named(parser, content, words):
    with pytest.raises(ValueError, match=f"x.file, {words}" if words.startswith("line") else words):
        parser(content.encode(), "x.file")


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.__name__)
def test_text_in_another_encoding(parser):
    for content in (b"n01440764 \xe9t\xe9", "n01440764".encode("utf-16")):
        with pytest.raises(ValueError, match="x.file is not text in UTF-8"):
            parser(content, "x.file")


@given(parser=st.sampled_from(PARSERS), content=st.binary() | st.text().map(str.encode))
def test_any_content_is_read_or_refused_with_its_file(parser, content):
    try:
        assert len(parser(content, "x.file")) > 0 or parser is solution
    except ValueError as error:
        assert str(error).startswith("x.file")


# meta.mat

def test_the_devkits_classes_are_those_without_children():
    assert [tuple(row) for row in devkit_synsets(meta_mat(), "meta.mat")] == [
        (IDS[wnid], wnid, WORDS[wnid]) for wnid in sorted(CLASSES, key=IDS.get)]
    assert not {wnid for _, wnid, _ in devkit_synsets(meta_mat(), "meta.mat")} & set(PARENTS)


def test_a_thousand_classes_and_one():
    ids = {f"n{number:08d}": 1001 - number for number in range(1, 1001)}
    assert {row.wnid: row.number for row in devkit_synsets(meta_mat(ids, parents={"n00009999": 1001}), "m")} == ids
    assert [row.wnid for row in devkit_synsets(meta_mat({"n01440764": 1}, parents={}), "m")] == ["n01440764"]


def other_mat(**variables):
    stream = io.BytesIO()
    savemat(stream, variables)
    return stream.getvalue()


@pytest.mark.parametrize("content, words", [
    (b"", "is not the devkit's meta.mat"), (b"text" * 100, "is not the devkit's meta.mat"),
    (meta_mat()[:300], "is not the devkit's meta.mat"), (other_mat(other=1), "KeyError: 'synsets'"),
    (other_mat(synsets=np.arange(3)), "is not the devkit's meta.mat"),
    (other_mat(synsets={"WNID": "n01440764"}), "is not the devkit's meta.mat"),
    (meta_mat(dict.fromkeys(CLASSES, 1)), "two classes with one number"),
    (meta_mat({"tench": 1}), "ILSVRC2012_ID 1: 'tench' must be a wnid"),
], ids=["empty", "text", "cut off", "of another program", "an array", "one text", "one number", "no wnid"])  # not the
# content: savemat writes the time into it
def test_another_or_a_damaged_matlab_file(content, words):
    with pytest.raises(ValueError, match=f"a/meta.mat.*{words}"):
        devkit_synsets(content, "a/meta.mat")


def test_is_wnid():
    assert annotations.is_wnid("n01440764")
    assert not any(map(annotations.is_wnid, ("", "n0144076", "n014407645", "n01440764\n", "m01440764")))
