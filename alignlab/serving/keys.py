"""API keys: who asks, and what the key allows. Only the hash of a key is stored."""

import hashlib
import secrets
import time

import sqlalchemy as sa

from alignlab.serving.limits import Rates
from alignlab.serving.metrics import Metrics
from alignlab.serving.problems import Problem
from alignlab.serving.store.records import User
from alignlab.serving.store.store import Store
from alignlab.serving.store.tables import keys

PREFIX = "al-"
FRESH = 2.0  # seconds for which a key that was looked up counts as valid
KNOWN = 10_000  # keys that are remembered, at most
LOCAL = User("local", "administer")


def hash_key(secret: str) -> str:
    """Return the hash of a key; a key has 256 random bits, so a slow hash would protect no better."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create_key(connection: sa.Connection, user: str, role: str, secret: str | None = None) -> str:
    """Store a key of a user, and return it; it cannot be read again. Without a secret it is random.

    A key that is there stays as it is, revoked or not.
    """
    secret = secret or PREFIX + secrets.token_urlsafe(32)
    if connection.execute(sa.select(keys.c.hash).where(keys.c.hash == hash_key(secret))).first():
        return secret
    row = {"hash": hash_key(secret), "user": user, "role": role, "created": time.time(), "revoked": None}
    connection.execute(keys.insert(), row)
    return secret


def revoke_keys(connection: sa.Connection, user: str) -> int:
    """Revoke all keys of a user, and return their number."""
    revoked = keys.update().where(keys.c.user == user, keys.c.revoked.is_(None)).values(revoked=time.time())
    return connection.execute(revoked).rowcount


def any_key(connection: sa.Connection) -> bool:
    """Return whether a key was ever created; a server whose keys are all revoked stays closed."""
    return connection.execute(sa.select(keys.c.hash).limit(1)).first() is not None


class Keyring:
    """Looks up keys; a store without any is open, which only a server on the loopback may be.

    After too many wrong keys from an address, keys from there that were not valid before are refused unread.
    """

    def __init__(self, store: Store, metrics: Metrics, wrong_per_minute: int) -> None:
        self.store, self.metrics = store, metrics
        self.wrong = Rates(wrong_per_minute, "too many wrong keys from this address")
        self.is_open = not store.read_now(any_key)
        self.looked = time.monotonic()
        self.known: dict[str, tuple[float, User | None]] = {}

    async def user(self, secret: str | None, address: str) -> User:
        """Return the user of a key; raises a `Problem` for a missing or wrong one, and after too many wrong ones."""
        if await self.still_open():
            return LOCAL
        if not secret:
            raise unauthorised("give a key: Authorization: Bearer <key>")
        hashed = hash_key(secret)
        when, user = self.known.get(hashed, (0.0, None))
        if user is None:
            self.check(address)
        if time.monotonic() - when > FRESH:
            user = await self.store.read(lambda connection: find(connection, hashed))
            if len(self.known) >= KNOWN:
                self.known.clear()
            self.known[hashed] = (time.monotonic(), user)
        if user is None:
            self.metrics.wrong_keys.labels("unknown").inc()
            self.wrong.take(address)
            raise unauthorised("the key is unknown or revoked")
        return user

    def check(self, address: str) -> None:
        """Raise a `Problem` where too many wrong keys came from an address."""
        try:
            self.wrong.check(address)
        except Problem:
            self.metrics.wrong_keys.labels("unread").inc()
            raise

    async def still_open(self) -> bool:
        """Return whether there is no key yet; the first one closes a running server within seconds."""
        if self.is_open and time.monotonic() - self.looked > FRESH:
            self.looked = time.monotonic()
            self.is_open = not await self.store.read(any_key)
        return self.is_open


def find(connection: sa.Connection, hashed: str) -> User | None:
    """Return the user of a key that is not revoked."""
    row = connection.execute(
        sa.select(keys.c.user, keys.c.role).where(keys.c.hash == hashed, keys.c.revoked.is_(None))
    ).first()
    return User(*row) if row else None


def unauthorised(message: str) -> Problem:
    """Build the problem of a request without a valid key."""
    return Problem(401, "unauthorised", message, {"WWW-Authenticate": "Bearer"})
