"""From one catalogue to another: what somebody thinks of thrillers says which love stories to show them.

`thrills` and `hearts` are the films of MovieLens-100K as two catalogues. Whoever has rated nothing in `hearts` is shown
there what everybody likes, unless the service knows them from `thrills`.
"""

import sys

from app.client import Client
from app.client.bodies import SupportInteraction

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"

LIKED = {"Psycho (1960)", "Alien (1979)", "Blade Runner (1982)", "Shining, The (1980)", "Pulp Fiction (1994)"}
DISLIKED = {
    "Batman Forever (1995)",
    "Con Air (1997)",
    "Speed (1994)",
    "Twister (1996)",
    "Independence Day (ID4) (1996)",
}

with Client(URL) as client:
    rated: list[SupportInteraction] = [
        {"domain": "thrills", "item_id": item.item_id, "value": 5 if item.title in LIKED else 1}
        for item in client.items("thrills")
        if item.title in LIKED | DISLIKED
    ]
    shown = client.recommend("hearts", support=rated, k=100)
    (transfer,) = [part.transfer for part in shown.parts if part.transfer]
    print(f"{transfer.source_size} ratings of {', '.join(transfer.sources)}; used: {'yes' if transfer.used else 'no'}")
    if transfer.gain:
        saved, surely = transfer.gain.gain, transfer.gain.low
        print(f"what that saved others of whom as much was known: {saved:.3f} of RMSE, surely {surely:.3f}")

    titles = {item.item_id: item.title for item in shown.items}
    to_them = {p.item_id: p.rating for p in client.predict("hearts", list(titles), support=rated).predictions}
    to_all = {p.item_id: p.rating for p in client.predict("hearts", list(titles), support=[]).predictions}
    by_change = sorted(titles, key=lambda item_id: to_them[item_id] - to_all[item_id])
    print("better for them than for everybody:")
    for item_id in reversed(by_change[-3:]):
        print(f"  {titles[item_id]}: {to_them[item_id]:.1f} instead of {to_all[item_id]:.1f}")
    print("worse for them than for everybody:")
    for item_id in by_change[:3]:
        print(f"  {titles[item_id]}: {to_them[item_id]:.1f} instead of {to_all[item_id]:.1f}")
