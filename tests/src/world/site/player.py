# Plays a user's programs: they connect, listen, and send datagrams. Each line of the input is an expression over the
# functions below. It is answered by its value, or by the name of the errno, and after a tab by the milliseconds that it
# took. Sockets have names, which the expressions choose.
#
#   python3 player.py
import errno, os, socket, struct, sys, time

sockets = {}


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def made(name, kind, address, port, reuse):
    one = sockets[name] = socket.socket(family(address), kind)
    if kind == socket.SOCK_STREAM:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind((address, port))
    return one


def listen(name, address, port=0, reuse=False):
    """Returns the port. `::` takes IPv4 as well."""
    made(name, socket.SOCK_STREAM, address, port, reuse).listen(1024)
    return port_of(name)


def port_of(name):
    return sockets[name].getsockname()[1]


def connect(name, address, port, source=None, patience=3.0):
    """`source`: an address and a port to come from."""
    close(name)
    one = sockets[name] = socket.socket(family(address))
    # Not settimeout(): poll() and SO_ERROR can miss, once in a thousand times, that an ICMP error has ended the attempt.
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(patience), int(patience % 1 * 1e6)))
    if source:
        # Leaves nothing behind that would keep the port.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(tuple(source))
    try:
        one.connect((address, port))
    except BlockingIOError:
        return "timeout"
    return "connected"


def connects(count, address, port, patience=3.0):
    """Connects so often, one after the other; how often with which outcome."""
    outcomes = {}
    for _ in range(count):
        one = outcome(lambda: connect("many", address, port, None, patience))
        outcomes[one] = outcomes.get(one, 0) + 1
    close("many")
    return " ".join(f"{name}:{count}" for name, count in sorted(outcomes.items()))


def connects_for(seconds, address, port, patience):
    """The same for so many seconds, of which the last connection takes what it takes."""
    outcomes, until = {}, time.monotonic() + seconds
    while time.monotonic() < until:
        one = outcome(lambda: connect("many", address, port, None, patience))
        outcomes[one] = outcomes.get(one, 0) + 1
        close("many")
        time.sleep(0.005)
    return " ".join(f"{name}:{count}" for name, count in sorted(outcomes.items()))


def accept_all(name):
    """Accepts and closes, as long as it runs."""
    import threading

    def serve(listener):
        while True:
            listener.accept()[0].close()

    sockets[name].settimeout(None)
    threading.Thread(target=serve, args=[sockets[name]], daemon=True).start()
    return "accepting"


def on_processors(parity):
    """Runs on the processors with even numbers from now on (0), or on the others (1)."""
    os.sched_setaffinity(0, [one for one in os.sched_getaffinity(0) if one % 2 == parity])
    return "there"


def begin(name, address, port):
    """Begins to connect, and does not wait: see `connected`."""
    one = sockets[name] = socket.socket(family(address))
    one.setblocking(False)
    one.connect_ex((address, port))
    return "begun"


def connected(name, patience=20.0):
    """Waits for what `begin` began."""
    import select

    if not select.select([], [sockets[name]], [], patience)[1]:
        return "timeout"
    failed = sockets[name].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return errno.errorcode[failed] if failed else "connected"


def accept(name, new, patience=3.0):
    sockets[name].settimeout(patience)
    sockets[new] = sockets[name].accept()[0]
    return "accepted"


def close(*names, reset=False):
    for name in names:
        if one := sockets.pop(name, None):
            if reset:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            one.close()
    return "closed"


def say(name, text):
    sockets[name].sendall(text.encode())
    return "said"


def say_to(name, text, address, port):
    sockets[name].sendto(text.encode(), (address, port))
    return "said"


def hear(name, patience=3.0):
    sockets[name].settimeout(patience)
    return sockets[name].recv(4096).decode() or "ended"


def datagrams(name, address, port=0, reuse=False):
    """A socket for datagrams; returns its port."""
    made(name, socket.SOCK_DGRAM, address, port, reuse)
    return port_of(name)


def towards(name, address, port):
    """The other end of its datagrams. Only then are errors heard."""
    sockets[name].connect((address, port))
    return "towards"


def ask(name, text="hello", patience=1.0):
    """Sends a datagram and waits for one."""
    say(name, text)
    return hear(name, patience)


def write_as(source, own, port, address, to):
    """Sends a datagram from a socket of `own`, with another address of the node as its source (ip(7), IP_PKTINFO)."""
    IP_PKTINFO = 8
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind((own, port))
        info = bytes(4) + socket.inet_aton(source) + bytes(4)
        one.sendmsg([b"forged"], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, (address, to))
    return "sent"


def member(name, group, interface, port=0):
    """A socket for datagrams to a group, by this interface; others may have the port as well. Returns it."""
    one = sockets[name] = socket.socket(family(group), socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("::" if ":" in group else "0.0.0.0", port))
    number = socket.if_nametoindex(interface)
    if ":" in group:
        joined = socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", number)
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, joined)
    else:
        joined = socket.inet_aton(group) + bytes(4) + struct.pack("@i", number)
        one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
    return port_of(name)


def towards_many(name, group, port, interface):
    """The same as `towards`, to a group."""
    number = socket.if_nametoindex(interface)
    if ":" in group:
        sockets[name].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, number)
    else:
        by = bytes(8) + struct.pack("@i", number)
        sockets[name].setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, by)
    return towards(name, group, port)


def checksum(content):
    """RFC 1071."""
    content += bytes(len(content) % 2)
    total = sum(struct.unpack(f"!{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def forge(kind, source, port, address, to):
    """Sends a packet with a source that need not be ours: a datagram ("udp"), or what begins a connection ("tcp")."""
    if kind == "udp":
        number, at, rest = socket.IPPROTO_UDP, 6, b"forged"
        head = struct.pack("!HHHH", port, to, 8 + len(rest), 0)
    else:
        number, at, rest = socket.IPPROTO_TCP, 16, b""
        head = struct.pack("!HHIIBBHHH", port, to, 1, 0, 5 << 4, 2, 1024, 0, 0)
    of = family(address)
    ends = socket.inet_pton(of, source) + socket.inet_pton(of, address)
    content = head + rest
    lengths = struct.pack("!I3xB" if of == socket.AF_INET6 else "!HxB", len(content), number)
    content = content[:at] + struct.pack("!H", checksum(ends + lengths + content)) + content[at + 2 :]
    if of == socket.AF_INET6:
        IPV6_HDRINCL = 36
        head = struct.pack("!IHBB", 6 << 28, len(content), number, 64) + ends
    else:
        # The kernel fills in the length, and the sum.
        head = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, number, 0) + ends
    with socket.socket(of, socket.SOCK_RAW, socket.IPPROTO_RAW) as one:
        if of == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)
        one.sendto(head + content, (address, 0))
    return "sent"


def flood(source, first, count, address, to):
    """Sends so many of what begins a TCP connection, each from another port of this source."""
    for port in range(first, first + count):
        forge("tcp", source, port, address, to)
    return "sent"


def shared(name, port=0, interface=None):
    """A socket for datagrams on a port that others may have as well; takes only what comes by the interface. Returns the
    port."""
    one = sockets[name] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if interface:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    one.bind(("0.0.0.0", port))
    return port_of(name)


def knocks(path, count):
    """Opens so many connections to a control socket (SEQPACKET); how many of them were not closed within half a second."""
    import select

    opened = []
    for number in range(count):
        one = sockets[f"knock{number}"] = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        one.connect(path)
        opened.append(one)
    time.sleep(0.5)
    return count - len(select.select(opened, [], [], 0)[0])


def told(name, patience=3.0):
    """Waits for a datagram, and answers it with its text backwards."""
    sockets[name].settimeout(patience)
    text, sender = sockets[name].recvfrom(4096)
    sockets[name].sendto(text[::-1], sender)
    return text.decode()


def child(keep=()):
    """A child that holds the same sockets; returns its pid."""
    pid = os.fork()
    if pid == 0:
        sys.stdin.close()
        time.sleep(600)
        os._exit(0)
    return pid


def offer(name, path):
    """Passes the socket to whoever calls `take` there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    door = socket.socket(socket.AF_UNIX)
    door.bind(path)
    os.chmod(path, 0o777)
    door.listen(1)
    sockets["door"], sockets["offered"] = door, sockets[name]
    return "offered"


def give():
    door = sockets["door"].accept()[0]
    socket.send_fds(door, [b"x"], [sockets["offered"].fileno()])
    return "given"


def take(name, path):
    door = socket.socket(socket.AF_UNIX)
    door.connect(path)
    sockets["path"] = door
    return "there"


def taken(name):
    fd = socket.recv_fds(sockets["path"], 1, 1)[1][0]
    sockets[name] = socket.socket(fileno=fd)
    return "taken"


def outcome(do):
    try:
        return str(do())
    except TimeoutError as failed:
        return "ETIMEDOUT" if failed.errno else "timeout"
    except OSError as failed:
        return errno.errorcode.get(failed.errno, repr(failed))


print("ready", flush=True)
for line in sys.stdin:
    began = time.monotonic()
    said = outcome(lambda: eval(line))
    print(f"{said}\t{1000 * (time.monotonic() - began):.0f}", flush=True)
