"""What is read from other programs' output, and what makes a row invalid. `python3 -B -m unittest` in benches/."""

import json
import tempfile
import unittest
from pathlib import Path

from . import files, jupyterlab, page, plot, report
from .load import Sample, parse_h2load, parse_wrk, percentile
from .places import BenchError
from .process import Stat, Workshop
from .report import goals, row, table
from .workloads import WORKLOADS

WRK = ('RESULT {"requests":100,"seconds":2.0,"bytes":126000,"p50_us":30,"p99_us":90,"p999_us":95,'
       '"status":%d,"connect":0,"read":0,"write":0,"timeout":%d,"wrong":%d}\n')
H2LOAD = """\
Application protocol: {protocol}
{closed}
requests: 4 total, 4 started, 4 done, {good} succeeded, {bad} failed, 0 errored, 0 timeout
traffic: 4.39KB (4600) total, 430B (440) headers (space savings 38.55%), 4.0KB ({data}) data
"""


def h2load(protocol="h2", closed="", bad=0, data=4096, statuses=(200, 200, 200, 200)):
    text = H2LOAD.format(protocol=protocol, closed=closed, good=4 - bad, bad=bad, data=data)
    return parse_h2load(text, "".join(f"17953738\t{s}\t{us}\n" for s, us in zip(statuses, (40, 10, 30, 20))), 2, 1024)


class Parsing(unittest.TestCase):
    def test_stat_with_a_name_that_imitates_fields(self):
        text = "7 (a) S 1 (b)) S 3 0 0 0 0 0 0 0 0 0 10 20 1 2 20 0 1 0 777 0"
        self.assertEqual(Stat.parse(text), Stat(parent=3, ticks=33, started=777))

    def test_wrk(self):
        for numbers, problems in (((0, 0, 0), 0), ((3, 0, 0), 1), ((0, 1, 0), 1), ((1, 1, 2), 3)):
            self.assertEqual(len(parse_wrk(WRK % numbers).problems), problems, numbers)
        self.assertEqual(parse_wrk(WRK % (0, 0, 0)).bytes_each, 1260)
        with self.assertRaises(BenchError):
            parse_wrk("Running 2s test")

    def test_h2load(self):
        load = h2load()
        self.assertEqual((load.p50_us, load.p99_us, load.problems), (20, 40, []))
        for wrong in ({"protocol": "http/1.1"}, {"closed": "Process Request Failure:1"}, {"bad": 1}, {"data": 900},
                      {"statuses": (200, 303, 200, 200)}, {"statuses": (200, -1, 200, 200)}, {"statuses": ()}):
            self.assertEqual(len(h2load(**wrong).problems), 1, wrong)

    def test_percentile(self):
        for count, percent, rank in ((1, 50, 1), (2, 50, 1), (100, 99, 99), (101, 99, 100), (1000, 99, 990), (1000, 99.9, 999)):
            self.assertEqual(percentile(range(1, count + 1), percent), rank)


class Rows(unittest.TestCase):
    KEEPALIVE, LINKS = WORKLOADS["keepalive"], WORKLOADS["links"]

    @staticmethod
    def rows(connections, numbers, problems=()):
        rows = []
        for target, cpus in numbers.items():
            samples = [Sample(n, 100, 50.0, p50_us=30.0, p99_us=90.0, cpu_us_per_request=c) for n, c in enumerate(cpus, 1)]
            if target == "portreeve":
                samples[-1].problems += problems
            rows.append(row(target, connections, samples))
        return rows

    def test_medians(self):
        mine = self.rows(1, {"portreeve": (26.0, 30.0, 27.0)})[0]
        self.assertEqual(mine["median"]["cpu_us_per_request"], 27.0)
        self.assertEqual(mine["spread"]["cpu_us_per_request"], [26.0, 30.0])

    def test_goals(self):
        for mine, reached in ((30.0, True), (30.8, True), (31.0, False)):
            rows = self.rows(1, {"haproxy": (30.0,), "portreeve": (mine,), "nginx": (1.0,)})
            self.assertEqual([g["reached"] for g in goals(rows, self.KEEPALIVE)], [reached, True], mine)
        for cpu, reached in (((800, 400, 3200), [True, True]), ((900, 400, 3200), [False, False])):
            rows = self.rows(8, {t: (c,) for t, c in zip(("portreeve", "nginx", "apache"), cpu)})
            self.assertEqual([g["reached"] for g in goals(rows, self.LINKS)], reached)

    def test_the_best_peer_is_no_target_of_ours(self):
        rows = self.rows(32, {"floor": (1.0,), "direct": (1.0,), "nginx": (20.0,), "haproxy": (30.0,), "portreeve": (21.0,)})
        self.assertEqual({g["peer"] for g in goals(rows, self.KEEPALIVE)}, {"haproxy", "nginx"})

    def test_one_bad_round_makes_the_row_invalid(self):
        rows = self.rows(1, {"haproxy": (30.0,) * 2, "portreeve": (20.0,) * 2}, ["1 x status outside 2xx and 3xx"])
        self.assertFalse(rows[1]["valid"])
        self.assertEqual(goals(rows, self.KEEPALIVE), [])


class Pages(unittest.TestCase):
    PREFIX = "/fw2/localhost:1"

    def test_the_page(self):
        self.assertEqual(len(page.PAGE), 117679)
        self.assertEqual(page.mapped(self.PREFIX).count(b'<a href="/fw2/localhost:1/item/'), page.LINKS)
        self.assertTrue(page.as_it_is(page.PAGE))

    def test_one_link_too_few_is_noticed(self):
        good = page.mapped(self.PREFIX)
        ours = good.replace(b"<head>", b'<head><script src="/-/rewrite.js?0" nonce="x"></script>').replace(
            b"</head>", b'<script type="importmap" nonce="x">{}</script></head>')
        anew = good.replace(b"<!doctype html>", b"").replace(b"</a></li>\n", b"</a>\n</li>")
        for is_right, body in ((page.literally, good), (page.with_ours, ours), (page.written_anew, anew)):
            is_right = is_right(self.PREFIX)
            self.assertTrue(is_right(body))
            self.assertFalse(is_right(body.replace(b'"/fw2/localhost:1/item/01234/', b'"/item/01234/')))
            self.assertFalse(is_right(body.replace(b"Item 00007", b"Item 7")))
        self.assertFalse(page.with_ours(self.PREFIX)(good))


def seen(ms, **wrong):
    """What the browser reports of one load with three requests, of which the last two are for the same."""
    requests = [{"method": "GET", "path": f"/p/{name}", "status": 200, "bytes": 512, "start": 10.0 * n, "ms": ms + n}
                for n, name in enumerate(("lab", "api/me", "api/me"))]
    requests[1] |= wrong
    return {"drawn": {"window": 15.0, "filled": 18.0}, "requests": requests, "sockets": [{"path": "/p/x", "status": 101}], "tls": None}


def lab_sample(number, *loads):
    sample = Sample(number)
    first = loads[0] | {"requests": [r | {"status": 302} for r in loads[0]["requests"]]}
    jupyterlab.read(sample, json.dumps({"first": first, "loads": loads}), "/p")
    return sample


class JupyterLab(unittest.TestCase):
    def test_a_page_is_complete_with_its_last_request(self):
        sample = lab_sample(1, seen(3.0), seen(5.0), seen(4.0))
        self.assertEqual((sample.drawn_ms, sample.complete_ms, sample.requests_each, sample.kib_page), (15.0, 26.0, 3, 1.5))
        self.assertEqual(sample.page["requests"], [
            ["GET /lab", 0.0, 4.0, 512], ["GET /api/me", 10.0, 5.0, 512], ["GET /api/me #2", 20.0, 6.0, 512]])
        self.assertEqual((sample.requests, sample.problems), (12, []))

    def test_what_makes_a_load_wrong(self):
        aborted = {"failed": "net::ERR_ABORTED"}
        for wrong, problems in (({"status": 502}, 1), (aborted, 1), (aborted | {"status": 204}, 0), ({"status": 304}, 0),
                                ({"status": 302}, 1)):
            self.assertEqual(len(lab_sample(1, seen(1.0), seen(1.0, **wrong)).problems), problems, wrong)
        for sockets in ([], [{"path": "/p/x"}], [{"path": "/p/x", "status": 400}]):
            self.assertEqual(len(lab_sample(1, seen(1.0) | {"sockets": sockets}).problems), 1, sockets)

    def test_what_a_target_added(self):
        samples = {("direct", 1): [lab_sample(1, seen(3.0))], ("portreeve", 1): [lab_sample(1, seen(4.5))]}
        jupyterlab.compare(samples)
        mine = samples["portreeve", 1][0]
        self.assertEqual((mine.added_ms, mine.added_total_ms, mine.problems), (1.5, 4.5, []))
        self.assertIsNone(samples["direct", 1][0].added_ms)

    def test_a_request_that_is_missing_is_noticed(self):
        short = seen(4.0)
        short["requests"].pop(0)
        samples = {("direct", 1): [lab_sample(1, seen(3.0))], ("portreeve", 1): [lab_sample(1, short)]}
        jupyterlab.compare(samples)
        self.assertEqual(samples["portreeve", 1][0].problems, ["never asked for GET /lab"])


class FileServers(unittest.TestCase):
    """Of two servers that are to be compared both must serve the same directory, and what was written is looked at."""

    def test_what_was_written_is_counted_if_it_is_whole(self):
        with Workshop() as shop:
            disk = files.Disk(shop.folder / "files", shop.folder / "files")
            disk.here.mkdir()
            disk.empty(shop)
            for name, length in (("1", files.SMALL), ("2", files.SMALL), ("3", files.SMALL - 1)):
                (disk.here / "new" / name).write_bytes(bytes(length))
            self.assertEqual(disk.written(), 2)
            disk.empty(shop)
            self.assertEqual(disk.written(), 0)
            disk.remove()
            self.assertFalse(disk.here.exists())

    def test_all_serve_the_same_directory(self):
        with Workshop() as shop:
            here, inside = shop.folder / "files", Path("/seen/there")
            here.mkdir()
            pem = shop.write("cert.pem", "x")
            for name, file, says in (("nginx", "nginx.conf", "root /seen/there;"), ("apache", "apache.conf", "Dav On")):
                argv, _ = files.server(shop, files.Disk(inside, here), name, 1234, "127.0.0.1", pem, pem)
                text = (here / f"setup-{name}-1234" / file).read_text()
                self.assertIn(str(inside / f"setup-{name}-1234" / file), map(str, argv))
                self.assertIn(says, text)
                self.assertIn("127.0.0.1:1234", text)
                self.assertNotIn(str(here), text)
            argv, _ = files.server(shop, files.Disk(inside, here), "rclone", 1234, "127.0.0.1", pem, pem)
            self.assertIn(str(inside), map(str, argv))


class Documents(unittest.TestCase):
    @staticmethod
    def document():
        samples = {(t, 1): [lab_sample(n, seen(ms)) for n in (1, 2)] for t, ms in (("direct", 3.0), ("portreeve", 4.0))}
        jupyterlab.compare(samples)
        workload = WORKLOADS["jupyterlab"]
        rows = [row(t, c, s) for (t, c), s in samples.items()]
        return report.document([table("jupyterlab", workload, {"connections": [1], "rounds": 2, "seconds": 1, "form": "here"}, rows)], {}, [], "")

    def test_json_has_short_lists_on_one_line(self):
        doc = self.document()
        doc["missing"] = ["a [ b", "\n ] c"]
        text = report.as_json(doc)
        self.assertEqual(json.loads(text), doc)
        self.assertIn('[ "GET /lab", 0.0, 4.0, 512 ]', text)

    @unittest.skipIf(plot.MISSING, plot.MISSING)
    def test_the_same_document_gives_the_same_pictures(self):
        doc = json.loads(report.as_json(self.document()))
        with tempfile.TemporaryDirectory() as folder:
            pictures = [{p.name: p.read_bytes() for p in plot.draw(doc, Path(folder) / "day.json", WORKLOADS)} for _ in range(2)]
        self.assertEqual(pictures[0], pictures[1])
        self.assertEqual(list(pictures[0]), ["day-jupyterlab.svg", "day-jupyterlab-requests.svg"])

    @unittest.skipIf(plot.MISSING, plot.MISSING)
    def test_every_workload_has_an_axis(self):
        self.assertLessEqual({w.main for w in WORKLOADS.values()}, plot.AXES.keys())


if __name__ == "__main__":
    unittest.main()
