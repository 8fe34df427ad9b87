"""`python -m stages.pack K`: decode the images of one of `preprocess.shards` shards; no stage of dvc.yaml.

Reads data/raw; writes data/packed/KKKKK-of-NNNNN.safetensors, from which preprocess takes the images instead
of decoding them. Decoding takes most of its time, and so several machines share it: each runs this for other
shards, at the same time. What preprocess writes does not depend on it.
"""

import sys
from collections.abc import Sequence

from ssd.errors import UserError
from ssd.params import Params
from ssd.prepare.decode import decode_images
from ssd.prepare.packed import shard_name, write_packed
from stages.command import command, parser_of
from stages.preprocess import PACKED, read_listing


def main(arguments: Sequence[str] = ()) -> None:
    """Pack the shard that the arguments name."""
    parser = parser_of(main)
    parser.add_argument("shard", type=int, metavar="K", help="which shard, from 0 to preprocess.shards - 1")
    shard = parser.parse_args(arguments).shard

    @command
    def pack(params: Params) -> None:
        pack_shard(params, shard)

    pack(())


def pack_shard(params: Params, shard: int) -> None:
    """Write the packed file of a shard, or say that there is only one.

    Raises:
        UserError: there is no such shard, data/raw is missing, or the file cannot be written.
    """
    num_shards = params.preprocess.shards
    if not 0 <= shard < num_shards:
        raise UserError(f"shard {shard}: allowed: 0 to {num_shards - 1} (preprocess.shards - 1)")
    if num_shards == 1:
        print("preprocess.shards is 1: there is nothing to spread; preprocess decodes all images")
        return
    _, listing = read_listing(params)
    paths = [ref.path for ref in listing.shard(shard, num_shards)]
    file = PACKED / shard_name(shard, num_shards)
    num_packed, num_broken = write_packed(file, decode_images(paths, params.preprocess), params.preprocess)
    print(f"packed: {file}, {num_packed} different images, of which {num_broken} do not decode")


if __name__ == "__main__":
    main(sys.argv[1:])
