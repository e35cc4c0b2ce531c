"""Secrets in configuration: which options hold one, and how a reference to a secret is written.

References have the grammar of Kafka Connect's FileConfigProvider and EnvVarConfigProvider, so that workers and the
control plane read one text alike: `${file:/PATH:KEY}` and `${env:NAME}`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from functools import lru_cache

HOW_TO_REFER = "Write ${file:/PATH:KEY} or ${env:NAME}, and the secret there."

# No part may hold what would end the reference early, or what a worker would split elsewhere than we do.
REFERENCE = re.compile(r"\$\{(file:/[^:{}\s]+:[^:{}\s]+|env:[A-Za-z_][A-Za-z0-9_]*)\}")
# What a provider would take for a reference, well formed or not.
CANDIDATE = re.compile(r"\$\{(file|env):([^}]*)\}")

# Names of options, fields and properties, searched anywhere in them: librdkafka's, Java clients', Debezium's, ours.
_SECRET = re.compile(
    r"password|passwd|passphrase|secret|token|credential|jaas|oauthbearer\.config|user\.info"
    r"|api[._-]?key|key\.pem|keystore\.key|\.salt$",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"password|passwd|passphrase|secrets?$", re.IGNORECASE)
_LOGIN_IN_URL = re.compile(r"://[^\s/:@]*:[^\s/@]+@")
# Of a JAAS line or the like: what is behind a name that is one of a secret.
_SECRET_PART = re.compile(
    r"""(?:password|passwd|secret|token|credential|api[._-]?key)\w*\s*=\s*("[^"]*"|'[^']*'|[^\s;,]+)""", re.IGNORECASE
)
# Named like one, and none.
_PUBLIC = frozenset({"sasl.oauthbearer.token.endpoint.url", "sasl.oauthbearer.client.credentials.client.id"})
# Their values are a text of several parts, one of them the secret.
_COMPOUND = re.compile(r"jaas|oauthbearer\.config|user\.info", re.IGNORECASE)


def is_reference(text: str) -> bool:
    """True when the text is one reference and nothing else."""
    return REFERENCE.fullmatch(text) is not None


def referred_files(text: str) -> tuple[str, ...]:
    """The paths of all file references in the text."""
    found = (match.group(1).partition(":") for match in REFERENCE.finditer(text))
    return tuple(where.rpartition(":")[0] for provider, _, where in found if provider == "file")


def has_login(url: str) -> bool:
    """True when a URL in the text carries a user with a password."""
    return _LOGIN_IN_URL.search(url) is not None


def names_password(name: str) -> bool:
    """True when all that lies below the name must be secret, whatever its own names are."""
    return _PASSWORD.search(name) is not None


@lru_cache(maxsize=4096)
def names_secret(option: str) -> bool:
    """True when an option's name says that its value is secret."""
    return option not in _PUBLIC and _SECRET.search(option) is not None


def is_secret_in_plain_text(option: str, value: str) -> bool:
    """True when the option's name says that it is secret and the value is no reference.

    The value of an option with several parts, such as `sasl.jaas.config`, must hold one.
    """
    if not names_secret(option):
        return False
    return not (_hides_its_secrets(value) if _COMPOUND.search(option) else is_reference(value))


def _hides_its_secrets(text: str) -> bool:
    """True for a text of several parts of which those that are secret are references."""
    parts = [found.group(1).strip("\"'") for found in _SECRET_PART.finditer(text)]
    if parts:
        return all(is_reference(part) for part in parts)
    # USER:PASSWORD, or something of which nothing is known: its end must be a reference.
    return REFERENCE.search(text) is not None and REFERENCE.sub("\0", text).endswith("\0")


def foreign_reference(text: str, dataset: str, directories: Sequence[str]) -> tuple[str, str] | None:
    """Why a dataset may not hold this text's references, and what to do; None when it may.

    Who writes a dataset chooses the reference, and the server to which the value is sent. So a dataset names files
    below `<directory>/<dataset>/` only, and no environment variable: those belong to the platform and its workers.

    Args:
        directories: the setting `secrets_dirs`; empty: no file may be named.
    """
    own = [f"{directory.rstrip('/')}/{dataset}/" for directory in directories]
    rest = REFERENCE.sub("", text)
    if "${" in rest:
        return "is not a valid reference.", f"Write ${{file:{own[0] if own else '/PATH/'}FILE:KEY}}."
    for found in REFERENCE.finditer(text):
        provider, _, where = found.group(1).partition(":")
        if provider == "env":
            cure = f"Write ${{file:{own[0]}FILE:KEY}}" if own else "Write ${file:DIRECTORY/DATASET/FILE:KEY}"
            return "names an environment variable, which no dataset may read.", f"{cure}, and the secret there."
        path = where.rpartition(":")[0]
        if not own:
            return (
                "names a file, and the setting `secrets_dirs` does not say where datasets' secrets are.",
                'Set secrets_dirs = ["/etc/cdc-platform/secrets"] for the platform and its agents, and move the '
                f"file to /etc/cdc-platform/secrets/{dataset}/ on all hosts.",
            )
        if posixpath.normpath(path) != path or not path.startswith(tuple(own)):
            move = f"{own[0]}{posixpath.basename(path)}"
            return (
                f"names a file that is not below {' or '.join(own)}, where this dataset's secrets belong.",
                f"Move it to {move} on all hosts, and write ${{file:{move}:{where.rpartition(':')[2]}}}.",
            )
    return None
