from __future__ import annotations

import datetime

import numpy as np
import pytest

import topb
from support.scripted_server import model_message, server_info_message
from topb import _translate
from topb._selection_end import has_succeeded
from topb.v1 import model_pb2, selection_pb2

pytestmark = pytest.mark.sdk


def test_a_server_message_becomes_a_server_info():
    assert _translate.server_info(server_info_message()) == topb.ServerInfo(
        version="0.1.0",
        devices=("cpu",),
        default_model="0123456789abcdef",
        strategies=("aalu", "random"),
        limits=topb.Limits(1_000_000, 4 * 2**20, 20 * 2**20, 50_000_000, 64, 2, 16_384, 1024),
    )


def test_a_model_message_becomes_a_model():
    assert _translate.model(model_message()) == topb.Model(
        id="0123456789abcdef",
        is_default=True,
        create_time=datetime.datetime(2025, 3, 4, 5, 6, 7, tzinfo=datetime.UTC),
        method="aalu",
        round=2,
        input=topb.ImageInput(32, 48, topb.ResizeRule.COVER_AND_CENTER_CROP),
        classes=("cat", "dog", "horse"),
        outputs=(
            topb.ModelOutput("score", "the assistant's", ()),
            topb.ModelOutput("features", "the task model's", (16,)),
        ),
        strategies=("aalu", "random"),
        labelled_count=4500,
        test_accuracy=0.625,
        seed=11,
        configuration={"task": {"epochs": 3.0}},
        library_versions={"torch": "2.9"},
        gates=(topb.GateMeasurement("score_error", 1e-6, 1e-4, "largest difference"),),
        encoder_id="e" * 16,
        feature_type="float16",
    )


def test_an_empty_model_message_becomes_a_model_with_defaults():
    model = _translate.model(model_pb2.Model())
    assert model.create_time is None
    assert model.test_accuracy is None
    assert model.input.resize == "unspecified"


def test_scores_are_in_order_with_skipped_images_in_their_place():
    response = selection_pb2.ScoreImagesResponse(model="m")
    response.results.add().scored.CopyFrom(
        selection_pb2.ImageScores.Scored(
            score=0.75, entropy=0.5, probabilities=[0.25, 0.75], features=[1.0, 2.0, 3.0]
        )
    )
    response.results.add().skipped.CopyFrom(
        selection_pb2.ImageScores.Skipped(reason="IMAGE_CORRUPT", detail="no JPEG")
    )
    response.results.add().scored.CopyFrom(selection_pb2.ImageScores.Scored(probabilities=[1.0]))
    scored, skipped, bare = _translate.image_scores(response, expected=3)
    assert (scored.score, scored.entropy, scored.model, scored.predicted_class) == (0.75, 0.5, "m", 1)
    assert scored.probabilities.dtype == scored.features.dtype == np.float32
    assert scored.probabilities.tolist() == [0.25, 0.75]
    assert scored.features.tolist() == [1.0, 2.0, 3.0]
    assert not scored.probabilities.flags.writeable
    assert skipped == topb.SkippedImage("IMAGE_CORRUPT", "no JPEG")
    assert bare.features is None
    assert bare.score is None


def test_a_model_without_a_classifier_predicts_no_class():
    response = selection_pb2.ScoreImagesResponse(model="m")
    response.results.add().scored.score = 0.0
    (scored,) = _translate.image_scores(response, expected=1)
    assert (scored.score, scored.predicted_class, scored.probabilities.shape) == (0.0, -1, (0,))


@pytest.mark.parametrize(("expected", "said"), [(2, "2 images with 1"), (1, "neither")])
def test_scores_that_do_not_match_the_images_are_a_protocol_error(expected, said):
    response = selection_pb2.ScoreImagesResponse(results=[selection_pb2.ImageScores()])
    with pytest.raises(topb.ProtocolError, match=said):
        _translate.image_scores(response, expected=expected)


@pytest.mark.parametrize("state", [0, 99])
def test_a_selection_in_an_unknown_state_is_described_but_waiting_for_it_is_a_protocol_error(state):
    """One such selection does not keep the others from being listed."""
    message = selection_pb2.Selection(id="s-1", state=state)
    described = _translate.selection(message)
    assert described.state is topb.SelectionState.UNSPECIFIED
    assert not described.state.ended
    with pytest.raises(topb.ProtocolError, match="not know") as caught:
        has_succeeded(message)
    assert caught.value.reason == "STATE_UNKNOWN"
