"""An e-mail queue: what the mail server refuses is tried again, later and later; then it is a dead letter; then somebody
mends what was wrong and sends it back. The mail server is a real one, on this machine, that is out of order on purpose."""

import json, os, smtplib, socket, urllib.request
from email.message import EmailMessage

from aiosmtpd.controller import Controller

HUB = os.environ.get("FANFARE_URL", "http://127.0.0.1:8080")
QUEUE = "/v1/queues/email"


def hub(method, path, body=None):
    request = urllib.request.Request(HUB + path, None if body is None else json.dumps(body).encode(), method=method)
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request) as response:
        return json.load(response)


class MailServer:
    """Refuses the first letter to `busy`, and all to `full` until there is room again."""

    def __init__(self):
        self.delivered, self.refused, self.has_room = [], [], False

    async def handle_RCPT(self, server, session, envelope, address, options):
        name = address.split("@")[0]
        if (name == "busy" and "busy" not in self.refused) or (name == "full" and not self.has_room):
            self.refused.append(name)
            return "452 4.2.2 no room in this mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.delivered += [address.split("@")[0] for address in envelope.rcpt_tos]
        return "250 Message accepted"


def deliver(letter, port):
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@example.org", letter["to"], letter["subject"]
    mail.set_content("Thank you.")
    with smtplib.SMTP("127.0.0.1", port) as smtp:
        smtp.send_message(mail)


def work(port):
    """Takes letters until none is left that could still be sent: no job waits, is delayed or in flight."""
    while True:
        for job in hub("POST", f"{QUEUE}/take", {"max": 10, "wait": 1, "lease": 30})["jobs"]:
            try:
                deliver(job["data"], port)
                hub("POST", f"{QUEUE}/ack", {"tag": job["tag"]})
                print(f"sent to {job['data']['to']}, try {job['try']}")
            except smtplib.SMTPException as error:
                hub("POST", f"{QUEUE}/nack", {"tag": job["tag"], "text": str(error)})
                print(f"refused for {job['data']['to']}, try {job['try']} of {job['max']}")
        stats = hub("GET", QUEUE)["stats"]
        if not (sum(stats["waiting"]) or stats["delayed"] or stats["in_flight"]):
            return stats["dead"]


with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
server = MailServer()
smtp = Controller(server, hostname="127.0.0.1", port=port)
smtp.start()
hub("PUT", QUEUE, {"max_deliveries": 3, "backoff": [0.2, 0.4]})
for name in ("ann", "busy", "full"):
    # The same order is written to once, however often its event comes.
    hub("POST", f"{QUEUE}/messages?dedupe=order-{name}", {"to": f"{name}@example.org", "subject": "Your order"})

print("dead letters:", work(port))
for letter in hub("GET", f"{QUEUE}/dead")["jobs"]:
    print("dead:", letter["data"]["to"], "because", letter["cause"], "-", letter["error"])

print("the mailbox has room again; redrive")
server.has_room = True
hub("POST", f"{QUEUE}/dead/redrive", {})
print("dead letters:", work(port))
smtp.stop()
print("delivered:", " ".join(sorted(server.delivered)))
