"""The options that say where a key is whose file only refers to it; nothing is loaded by them."""

import click

#: For commands that find a key reference where a key would be.
key_store_option = click.option(
    "--key-store",
    "key_stores",
    multiple=True,
    metavar="URI",
    help="Where the key is whose file only refers to it: pkcs11:… or signer:…. Repeatable.",
)
token_pin_option = click.option(
    "--token-pin-file",
    metavar="PATH",
    help="The PIN of a token whose URI names no pin-source.",
)
