"""What is laid over the template for the embedded AWS."""

import json
from copy import deepcopy

from local.overlay import leave_out_what_is_unknown
from tests.support.sam_template import WRITTEN


def test_what_the_embedded_aws_does_not_know_is_left_out_and_named_nowhere() -> None:
    template = deepcopy(WRITTEN)

    leave_out_what_is_unknown(template)

    resources = WRITTEN["Resources"].keys() - template["Resources"].keys()
    outputs = WRITTEN["Outputs"].keys() - template["Outputs"].keys()
    assert resources == {"EventArchive", "EventReadersMakeRules", "EventReadersKeepRules"}
    assert outputs == {"EventArchiveArn"}
    left = json.dumps([template["Resources"], template["Outputs"]])
    assert not [name for name in resources if name in left]
