# Plays an application whose sockets are unusual, and speaks as portreeve-test-app does: says where it listens, answers each
# request with its uid, and says on "report" how many connections and bytes it had. On "close" it closes its LISTEN socket;
# what was accepted goes on.
#
#   python3 -c ... ADDRESS:PORT [--defer] [--reuse] [--made-by UID] [--accepted-by UID]
#
# --defer: TCP_DEFER_ACCEPT. --reuse: SO_REUSEPORT. --made-by: a process of that uid makes the LISTEN socket, keeps it, and passes it on;
# --accepted-by: to one of this uid. Both need root.
import os, socket, sys, threading

address, port = sys.argv[1].rsplit(":", 1)
address = address.strip("[]")
after = lambda name: int(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else None
taken = ended = received = 0


def become(uid):
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)


def listening(port):
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if "--reuse" in sys.argv:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if "--defer" in sys.argv:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)
    made.bind((address, port))
    made.listen(64)
    return made


def passed_on(uid):
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        become(uid)
        made = listening(int(port))
        socket.send_fds(theirs, [b"x"], [made.fileno()])
        ours.close()
        theirs.recv(1)  # until the other one has gone
        os._exit(0)
    theirs.close()
    keep.append(ours)
    return socket.socket(fileno=socket.recv_fds(ours, 1, 1)[1][0])


def converse(stream):
    global ended, received
    head = b""
    body = f"I am uid {os.geteuid()}\n".encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    try:
        while chunk := stream.recv(4096):
            received += len(chunk)
            head += chunk
            if b"\r\n\r\n" in head:
                head = b""
                stream.sendall(answer)
    except OSError:
        pass
    stream.close()
    ended += 1


def serve(listener):
    global taken
    while True:
        try:
            stream, _ = listener.accept()
        except OSError:
            return
        taken += 1
        threading.Thread(target=converse, args=[stream], daemon=True).start()


keep = []
maker = after("--made-by")
listener = listening(int(port)) if maker is None else passed_on(maker)
become(after("--accepted-by"))
port = listener.getsockname()[1]
threading.Thread(target=serve, args=[listener], daemon=True).start()
print(f"listening on {port}", flush=True)
for line in sys.stdin:
    if line == "report\n":
        print(f"report {taken} {ended} {received}", flush=True)
    else:
        # Whoever waits in accept() holds it open, close() or not.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
