"""What config.json files say alike."""

from limner.models.families.fields import rotary_share


def test_a_share_of_a_head_comes_back_as_the_same_width():
    for head_width in range(2, 300):
        for width in range(2, head_width + 1, 2):
            assert int(head_width * rotary_share(width, head_width)) == width
