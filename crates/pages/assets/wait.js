// Asks for this very address again until something other than the waiting page answers, then opens it.
const again = async () => {
  try {
    const reply = await fetch(location.href, { method: "HEAD", cache: "no-store", redirect: "manual" });
    if (reply.headers.get("x-portreeve-error") !== "not-listening") return location.reload();
  } catch { /* the portal itself is away: keep asking */ }
  setTimeout(again, 1000);
};
setTimeout(again, 1000);
