"""Every knob of the service, typed, documented, set by environment variables named `WARMSTART_<NAME>`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    import torch


def is_limit(limit: str) -> str:
    """The limit as it was given. Raises ValueError for what is none."""
    from limits import parse

    if limit:
        parse(limit)
    return limit


Limit = Annotated[str, AfterValidator(is_limit)]
"""Requests in a period: `10/second`, `600/minute`, `100 per 5 minutes`; empty for no limit."""


class Settings(BaseSettings):
    """Settings of one running service. `docs/settings.md` is made from this class by `warmstart settings`."""

    model_config = SettingsConfigDict(env_prefix="WARMSTART_", use_attribute_docstrings=True, extra="ignore")

    data_dir: Path = Path("./var")
    """Folder for everything that the embedded service keeps: database, data sets, checkpoints."""
    database_url: str | None = None
    """`postgresql://user:password@host/name`, or `sqlite:///path`. Default: a SQLite file in the data folder."""
    redis_url: str | None = None
    """`redis://host:6379/0` to share user states between workers and machines. Default: a cache in the process."""
    checkpoint_dir: Path | None = None
    """Folder of checkpoints that may be served. Default: `checkpoints` in the data folder."""
    max_checkpoint_bytes: int = Field(2 * 1024**3, ge=1)
    """Checkpoints that are larger on disk are not loaded."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    access: Literal["auto", "keys", "proxy"] = "auto"
    """Who is let in. `auto`: once a key was made, whoever has one; until then this machine alone. `keys`: whoever has
    one, even where none was made. `proxy`: everybody, for a proxy in front of the service asks who they are."""
    bootstrap_admin_key_file: Path | None = None
    """File with a key, 32 to 200 letters, digits, `_` and `-`, that is stored at the start with all scopes: the first
    key of a container."""
    rate_limit: Limit = ""
    """Requests that a key may send, such as `600/minute`, where it has no limit of its own. Default: any number."""
    user_rate_limit: Limit = "120/minute"
    """Requests that the tokens of one user may send together. Empty: any number."""
    refused_rate_limit: Limit = "600/minute"
    """Requests without a key that holds, from one address to one worker, that are told so; more get 429. Empty: all."""
    cors_origins: str = ""
    """Origins of the pages of others that may call the service from a browser, with commas between them; `*` is all."""
    workers: int = Field(1, ge=1, le=256)
    """Processes that serve. More than one need Postgres to be of use."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where recommenders run. `auto` is CUDA where there is a device, the CPU otherwise."""
    torch_threads: int = Field(0, ge=0)
    """Threads for tensor arithmetic in one worker. 0: half of the cores, divided by the workers."""
    max_batch: int = Field(64, ge=1)
    """Requests that are computed together at most."""
    max_queue: int = Field(512, ge=1)
    """Requests that may wait for their turn before further ones are refused with 503."""
    max_working: int = Field(64, ge=1)
    """Requests that one worker works on together at most; fewer where they delay each other too much."""
    max_wait_seconds: float = Field(0.5, gt=0)
    """Time that a request of a burst may wait for its turn before it is refused with 503. Under lasting overload 15 %
    of it, which is also the delay that requests may cause each other."""
    deadline_seconds: float = Field(10.0, gt=0)
    """Time in which a request is answered, or with 504; admin calls may take longer."""
    drain_seconds: float = Field(3.0, ge=0)
    """Pause after SIGTERM in which `/readyz` says 503 and requests are still answered, before the listener closes. To
    be longer than the time between two looks of whatever distributes requests."""
    keep_alive_seconds: int = Field(75, ge=1)
    """Time after which the service closes a connection that nobody uses. To be longer than that of whatever distributes
    requests, for a request that is sent while its connection closes gets no answer: nginx and most others keep one for
    60 seconds."""
    max_history: int = Field(200, ge=1)
    """Interactions of a user, the newest ones, that count as evidence."""
    max_body_bytes: int = Field(1024 * 1024, ge=1024)
    """Request bodies over this are refused with 413."""
    max_header_bytes: int = Field(32 * 1024, ge=1024)
    """Request headers over this are refused with 431."""
    body_timeout_seconds: float = Field(15.0, gt=0)
    """Time for a request's body to arrive before it is refused with 408."""
    follow_seconds: float = Field(1.0, gt=0)
    """Pause between two looks for what other workers have acknowledged, where no requests come that look as well."""
    probation_seconds: float = Field(60.0, ge=0)
    """Time after a reload in which the checkpoint before is put back if the engine fails, or takes far longer than it
    did. 0: never."""
    probation_slower: float = Field(3.0, gt=1)
    """How many times longer than before the median of answers may take in that time, and 50 ms."""
    shadow_share: float = Field(0.0, ge=0, le=1)
    """Share of answers that are made a second time for a checkpoint on trial (a reload with `shadow`), where there is
    one. 0: none, and no checkpoint is put on trial."""
    cache_max_bytes: int = Field(64 * 1024 * 1024, ge=0)
    """Ceiling of the in-process cache of user states."""
    cache_ttl_seconds: int = Field(3600, ge=1)
    """Life of a cached user state."""
    cache_max_state_bytes: int = Field(64 * 1024, ge=0)
    """States larger than this are computed anew at each request rather than cached."""
    statement_timeout_seconds: float = Field(5.0, gt=0)
    """Time that Postgres may take for one statement."""
    pool_size: int = Field(10, ge=1)
    """Database connections of one worker."""
    live_counts_seconds: float = Field(2.0, ge=0)
    """Age at which the live counts of a domain without checkpoints are read again."""
    arms_seconds: float = Field(2.0, ge=0)
    """Age at which policies read again what was shown and what came of it."""
    audit_retention_days: float = Field(365.0, gt=0)
    """Age at which acts leave the record of what was asked of admin routes."""
    slate_retention_days: float = Field(90.0, gt=0)
    """Age at which slates leave the log, with their rewards. Arms keep what they say."""
    idempotency_hours: float = Field(24.0, gt=0)
    """Time for which the answer to a write with an `Idempotency-Key` is kept, and given again."""
    tombstone_days: float = Field(30.0, gt=0)
    """Time for which events of erased users are known, by keyed digests, so that none that is sent late comes back."""
    upkeep_seconds: float = Field(5.0, gt=0)
    """Pause between two looks for slates that are old, or whose places are due for the default reward."""
    learn_seconds: float = Field(2.0, ge=0)
    """Pause between two looks for what came in about items, whose rows are then learnt again. 0: nothing is learnt."""
    learn_ratings: int = Field(200, ge=1)
    """Events of an item, the newest ones, that its row is learnt from."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe log lines that are written."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto` is for people on a terminal, JSON elsewhere."""

    @property
    def database(self) -> str:
        """URL of the database, the default filled in."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'warmstart.db').absolute()}"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints, the default filled in."""
        return self.checkpoint_dir or self.data_dir / "checkpoints"

    @property
    def torch_device(self) -> "torch.device":
        """The device that `device` stands for on this machine."""
        import torch  # takes a second, which `warmstart --help` can do without

        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)
