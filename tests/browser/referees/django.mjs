// A Django admin: signing in with its token against forged requests, a form that uploads a file, the redirect after it.
// Behind any proxy that speaks HTTPS for it, Django must be told which field says so; else it takes its own pages for forged.

import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { same } from "../world.mjs";

const SETTINGS = `
from pathlib import Path
BASE_DIR = Path(__file__).parent
SECRET_KEY = "of-the-test"
DEBUG = True
ALLOWED_HOSTS = [".localhost"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
INSTALLED_APPS = ["django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    "django.contrib.messages", "django.contrib.staticfiles", "papers"]
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware", "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware"]
ROOT_URLCONF = "urls"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "OPTIONS": {"context_processors": [
    "django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
    "django.contrib.messages.context_processors.messages"]}}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
STATIC_URL = "/static/"
MEDIA_URL = "/media/"
MEDIA_ROOT = BASE_DIR / "media"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
`;

const FILES = {
  "settings.py": SETTINGS,
  "urls.py": `
from django.conf import settings
from django.conf.urls.static import static
from django.contrib import admin
from django.urls import path
urlpatterns = [path("admin/", admin.site.urls)] + static(settings.MEDIA_URL, document_root=settings.MEDIA_ROOT)
`,
  "papers/__init__.py": "",
  "papers/models.py": `
from django.db import models
class Paper(models.Model):
    title = models.CharField(max_length=100)
    text = models.FileField(upload_to="papers")
    def __str__(self): return self.title
`,
  "papers/admin.py": `
from django.contrib import admin
from .models import Paper
admin.site.register(Paper)
`,
};

export const django = {
  name: "Django admin",
  needs: ({ venv }) => [join(venv, "bin/django-admin")],
  path: "admin/",
  async begin(place) {
    mkdirSync(join(place.dir, "papers"));
    for (const [name, text] of Object.entries(FILES)) writeFileSync(join(place.dir, name), text);
    const env = { ...process.env, DJANGO_SETTINGS_MODULE: "settings", PYTHONPATH: place.dir, DJANGO_SUPERUSER_PASSWORD: "of-the-test" };
    const admin = (...args) => execFileSync(join(place.venv, "bin/django-admin"), args, { cwd: place.dir, env, stdio: "pipe" });
    admin("makemigrations", "papers");
    admin("migrate");
    admin("createsuperuser", "--noinput", "--username", "root", "--email", "root@example.org");
    const port = await place.port();
    await place.run(join(place.venv, "bin/django-admin"), ["runserver", "--noreload", `127.0.0.1:${port}`], { port, env: { DJANGO_SETTINGS_MODULE: "settings", PYTHONPATH: place.dir } });
    return { port, visits: 0 };
  },
  async use(page, app) {
    const title = `A paper, ${(app.visits += 1)}`;
    await page.getByLabel("Username").fill("root");
    await page.getByLabel("Password").fill("of-the-test");
    await page.getByRole("button", { name: "Log in" }).click();
    await page.locator(".model-paper .addlink").first().click();
    await page.getByLabel("Title").fill(title);
    await page.locator("input[type=file]").setInputFiles({ name: "paper one.txt", mimeType: "text/plain", buffer: Buffer.from("what it says") });
    await page.getByRole("button", { name: "Save", exact: true }).click();
    await page.locator(".messagelist .success").waitFor();
    await page.getByRole("link", { name: title }).last().click();
    const file = page.locator(".file-upload a");
    same(await page.evaluate(async (href) => (await fetch(href)).text(), await file.getAttribute("href")), "what it says", "the file");
    await page.getByRole("button", { name: "Log out" }).waitFor();
  },
};
