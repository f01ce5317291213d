#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "admin/client.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/scrape.h"
#include "cli/signals.h"

namespace prism::cli {
namespace {

using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct Options {
  std::string admin = "127.0.0.1:8981";
  std::string namespace_name;  // empty: all
  double seconds = 2;
  bool once = false;
  bool profile = false;
  Format format = Format::text;
};

Clock::duration seconds(double n) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(n));
}

// A number that people compare: three digits, seconds as ms or s.
std::string time_text(double s) {
  if (s <= 0) return "-";
  if (s < 1e-3) return fmt::format("{:.0f} us", s * 1e6);
  if (s < 1e-2) return fmt::format("{:.2f} ms", s * 1e3);
  if (s < 0.1) return fmt::format("{:.1f} ms", s * 1e3);
  if (s < 1) return fmt::format("{:.0f} ms", s * 1e3);
  return fmt::format("{:.1f} s", s);
}
std::string rate_text(double n) { return n <= 0 ? "-" : fmt::format("{:.{}f}", n, n < 10 ? 1 : 0); }
std::string count_text(double n) { return n <= 0 ? "-" : fmt::format("{:.0f}", n); }

// --- the table ---

struct Column {
  const char* title;
  int width;
  bool left = false;
};

void line(std::string& out, const std::vector<Column>& columns, const std::vector<std::string>& cells) {
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const auto& column = columns[i];
    out += column.left ? fmt::format("{:<{}}", cells[i], column.width) : fmt::format("{:>{}}", cells[i], column.width);
    out += i + 1 < columns.size() ? " " : "\n";
  }
}

void table(std::string& out, std::vector<Column> columns, const std::vector<std::vector<std::string>>& rows) {
  if (rows.empty()) return;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    for (const auto& row : rows) columns[i].width = std::max(columns[i].width, static_cast<int>(row[i].size()));
  }
  std::vector<std::string> titles;
  for (const auto& column : columns) titles.emplace_back(column.title);
  out += "\n";
  line(out, columns, titles);
  for (const auto& row : rows) line(out, columns, row);
}

// What is shown, as JSON; the text is made of it.
ordered_json measure(const Change& change, const std::string& only) {
  const double over = std::max(change.seconds(), 1e-3);
  const auto& now = change.after();
  const auto per_second = [&](std::string_view name, const Labels& labels) { return change.of(name, labels) / over; };
  const auto namespaces_of = [&](std::string_view name) {
    auto names = change.values(name, "namespace");
    std::erase_if(names, [&](const auto& n) { return !only.empty() && n != only; });
    return names;
  };

  ordered_json namespaces = ordered_json::array();
  for (const auto& ns : namespaces_of("prism_publish_duration_seconds_count")) {
    const Labels of{{"namespace", ns}};
    namespaces.push_back({{"namespace", ns},
                          {"calls_per_second", per_second("prism_requests_total", of)},
                          {"errors_per_second", per_second("prism_request_errors_total", of) +
                                                    per_second("prism_messages_refused_total", of)},
                          {"published_per_second", per_second("prism_messages_published_total", of)},
                          {"published_bytes_per_second", per_second("prism_published_bytes_total", of)},
                          {"publish_p50_seconds", change.quantile("prism_publish_duration_seconds", of, 0.5)},
                          {"publish_p99_seconds", change.quantile("prism_publish_duration_seconds", of, 0.99)},
                          {"delivered_per_second", per_second("prism_messages_delivered_total", of)},
                          {"redelivered_per_second", per_second("prism_messages_redelivered_total", of)},
                          {"subscriptions", now.sum("prism_subscriptions", of)},
                          {"consumer_lag_messages", now.sum("prism_consumer_lag_messages", of)},
                          {"outbox_pending", now.sum("prism_pattern_outbox_pending_count", of)},
                          {"claim_check_bytes", now.sum("prism_pattern_claim_check_storage_bytes", of)}});
  }

  ordered_json patterns = ordered_json::array();
  for (const auto& ns : namespaces_of("prism_pattern_chain_duration_seconds_count")) {
    for (const auto& pattern :
         change.values("prism_pattern_chain_duration_seconds_count", "pattern", {{"namespace", ns}})) {
      const Labels of{{"namespace", ns}, {"pattern", pattern}};
      constexpr std::string_view kOwn = "prism_pattern_chain_duration_seconds";
      patterns.push_back(
          {{"namespace", ns},
           {"pattern", pattern},
           {"calls_per_second", change.count(kOwn, of) / over},
           {"own_p50_seconds", change.quantile(kOwn, of, 0.5)},
           {"own_p99_seconds", change.quantile(kOwn, of, 0.99)},
           {"inclusive_p99_seconds", change.quantile("prism_pattern_inclusive_duration_seconds", of, 0.99)}});
    }
  }

  ordered_json backends = ordered_json::array();
  for (const auto& backend : change.values("prism_backend_operations_total", "backend")) {
    for (const auto& operation : change.values("prism_backend_operations_total", "operation", {{"backend", backend}})) {
      const Labels of{{"backend", backend}, {"operation", operation}};
      backends.push_back({{"backend", backend},
                          {"operation", operation},
                          {"calls_per_second", per_second("prism_backend_operations_total", of)},
                          {"errors_per_second", per_second("prism_backend_errors_total", of)},
                          {"p50_seconds", change.quantile("prism_backend_duration_seconds", of, 0.5)},
                          {"p99_seconds", change.quantile("prism_backend_duration_seconds", of, 0.99)},
                          {"in_flight", now.sum("prism_backend_in_flight", of)}});
    }
  }

  ordered_json jobs = ordered_json::array();
  for (const auto& ns : namespaces_of("prism_job_shards")) {
    for (const auto& job : change.values("prism_job_shards", "name", {{"namespace", ns}})) {
      const Labels of{{"namespace", ns}, {"name", job}};
      ordered_json states = ordered_json::object();
      for (const auto& state : change.values("prism_job_shards", "state", of)) {
        Labels with_state = of;
        with_state["state"] = state;
        if (const double n = now.sum("prism_job_shards", with_state); n > 0) states[state] = n;
      }
      jobs.push_back({{"namespace", ns},
                      {"job", job},
                      {"shards", std::move(states)},
                      {"rounds_per_second", per_second("prism_job_rounds_total", of)},
                      {"items_per_second", per_second("prism_job_items_total", of)},
                      {"errors_per_second", per_second("prism_job_errors_total", of)},
                      {"lag_seconds", now.sum("prism_job_lag_seconds", of)}});
    }
  }

  return {{"interval_seconds", change.seconds()},
          {"process",
           {{"uptime_seconds", now.sum("prism_uptime_seconds")},
            {"cpu_cores", change.of("process_cpu_seconds_total") / over},
            {"resident_bytes", now.sum("process_resident_memory_bytes")},
            {"open_fds", now.sum("process_open_fds")},
            {"calls_in_flight", now.sum("prism_requests_in_flight")},
            {"payload_budget_used_bytes", now.sum("prism_payload_budget_used_bytes")},
            {"loop_lag_p99_seconds", change.quantile("prism_loop_lag_seconds", {}, 0.99)},
            {"stalls", change.of("prism_stalls_total")}}},
          {"namespaces", std::move(namespaces)},
          {"patterns", std::move(patterns)},
          {"backends", std::move(backends)},
          {"jobs", std::move(jobs)}};
}

std::string format_text(const ordered_json& shown, const std::string& address) {
  const auto number = [](const ordered_json& row, const char* key) { return row.at(key).get<double>(); };
  const auto name = [](const ordered_json& row, const char* key) { return row.at(key).get<std::string>(); };
  const auto& process = shown.at("process");
  std::string out = fmt::format(
      "prism at {}  up {}  {:.2f} cores  {}  {:.0f} fds  {:.0f} calls in flight  loop lag p99 {}  {:.0f} stalls  "
      "(over {:.1f} s)\n",
      address, human_time(seconds(number(process, "uptime_seconds"))), number(process, "cpu_cores"),
      human_bytes(static_cast<std::uint64_t>(number(process, "resident_bytes"))), number(process, "open_fds"),
      number(process, "calls_in_flight"), time_text(number(process, "loop_lag_p99_seconds")), number(process, "stalls"),
      number(shown, "interval_seconds"));

  std::vector<std::vector<std::string>> rows;
  for (const auto& r : shown.at("namespaces")) {
    rows.push_back({name(r, "namespace"), rate_text(number(r, "calls_per_second")),
                    rate_text(number(r, "errors_per_second")), rate_text(number(r, "published_per_second")),
                    human_bytes(static_cast<std::uint64_t>(number(r, "published_bytes_per_second"))),
                    time_text(number(r, "publish_p50_seconds")), time_text(number(r, "publish_p99_seconds")),
                    rate_text(number(r, "delivered_per_second")), rate_text(number(r, "redelivered_per_second")),
                    count_text(number(r, "subscriptions")), count_text(number(r, "consumer_lag_messages")),
                    count_text(number(r, "outbox_pending"))});
  }
  table(out,
        {{"NAMESPACE", 14, true},
         {"CALLS/S", 7},
         {"ERR/S", 5},
         {"PUB/S", 6},
         {"BYTES/S", 9},
         {"PUB P50", 8},
         {"PUB P99", 8},
         {"DELIV/S", 7},
         {"AGAIN/S", 7},
         {"SUBS", 4},
         {"LAG", 6},
         {"OUTBOX", 6}},
        rows);

  rows.clear();
  for (const auto& r : shown.at("patterns")) {
    rows.push_back({name(r, "namespace"), name(r, "pattern"), rate_text(number(r, "calls_per_second")),
                    time_text(number(r, "own_p50_seconds")), time_text(number(r, "own_p99_seconds")),
                    time_text(number(r, "inclusive_p99_seconds"))});
  }
  table(out,
        {{"NAMESPACE", 14, true},
         {"PATTERN", 18, true},
         {"CALLS/S", 7},
         {"OWN P50", 8},
         {"OWN P99", 8},
         {"WITH INNER P99", 14}},
        rows);

  rows.clear();
  for (const auto& r : shown.at("backends")) {
    if (number(r, "calls_per_second") == 0 && number(r, "in_flight") == 0) continue;
    rows.push_back({name(r, "backend"), name(r, "operation"), rate_text(number(r, "calls_per_second")),
                    rate_text(number(r, "errors_per_second")), time_text(number(r, "p50_seconds")),
                    time_text(number(r, "p99_seconds")), count_text(number(r, "in_flight"))});
  }
  table(out,
        {{"BACKEND", 14, true},
         {"OPERATION", 18, true},
         {"CALLS/S", 7},
         {"ERR/S", 5},
         {"P50", 8},
         {"P99", 8},
         {"IN FLIGHT", 9}},
        rows);

  rows.clear();
  for (const auto& r : shown.at("jobs")) {
    std::string states;
    for (const auto& [state, n] : r.at("shards").items())
      states += fmt::format("{}{} {:.0f}", states.empty() ? "" : ", ", state, n.get<double>());
    rows.push_back({name(r, "namespace"), name(r, "job"), states, rate_text(number(r, "rounds_per_second")),
                    rate_text(number(r, "items_per_second")), rate_text(number(r, "errors_per_second")),
                    time_text(number(r, "lag_seconds"))});
  }
  table(out,
        {{"NAMESPACE", 14, true},
         {"JOB", 20, true},
         {"SHARDS", 16, true},
         {"ROUNDS/S", 8},
         {"ITEMS/S", 7},
         {"ERR/S", 5},
         {"LAG", 8}},
        rows);
  return out;
}

// --- the profile ---

// A part of the time of a namespace's publishes.
struct Part {
  std::string step;       // "api", a pattern, "log"
  std::string operation;  // of a backend: "s3 objects.put"; "itself": the rest; empty: the whole step
  double seconds = 0;
  double calls = 0;
};

struct Profile {
  double publishes = 0;
  double seconds = 0;  // of all of them together, what the API adds included
  double p50 = 0, p99 = 0;
  bool with_api = false;  // what the API adds is known: no publishes came by streams, which are open all the time
  bool with_patterns = true;
  std::vector<Part> steps;  // outermost first
  std::vector<Part> parts;  // of the steps
};

Profile profile_of(const Change& change, const std::string& ns, const std::vector<std::string>& chain) {
  Profile out;
  const Labels of{{"namespace", ns}};
  constexpr std::string_view kPublish = "prism_publish_duration_seconds";
  constexpr std::string_view kOwn = "prism_pattern_chain_duration_seconds";
  constexpr std::string_view kBackend = "prism_pattern_backend_duration_seconds";
  out.publishes = change.count(kPublish, of);
  const double in_chain = change.total(kPublish, of);
  out.p50 = change.quantile(kPublish, of, 0.5);
  out.p99 = change.quantile(kPublish, of, 0.99);

  double requests = 0, streamed = 0;
  for (const auto* method : {"Publish", "PublishBatch", "PublishPayload"}) {
    Labels with_method = of;
    with_method["method"] = method;
    requests += change.total("prism_request_duration_seconds", with_method);
  }
  Labels stream = of;
  stream["method"] = "PublishStream";
  streamed = change.of("prism_messages_published_total", stream);
  out.with_api = streamed == 0 && requests >= in_chain;
  out.seconds = out.with_api ? requests : in_chain;
  if (out.with_api) out.steps.push_back({"api", {}, requests - in_chain, out.publishes});

  std::vector<std::string> patterns(chain.begin(), chain.empty() ? chain.end() : chain.end() - 1);
  double in_patterns = 0;
  for (const auto& pattern : patterns) {
    Labels own = of;
    own["pattern"] = pattern;
    const double calls = change.count(kOwn, own);
    if (calls == 0 && out.publishes > 0) out.with_patterns = false;
    in_patterns += change.total(kOwn, own);
    out.steps.push_back({pattern, {}, change.total(kOwn, own), calls});
  }
  out.steps.push_back({"log", {}, std::max(0.0, in_chain - in_patterns), 0});
  if (!out.with_patterns) {
    std::erase_if(out.steps, [](const Part& step) { return step.step != "api"; });
    out.steps.push_back({"chain", {}, in_chain, out.publishes});
    return out;
  }

  for (auto& step : out.steps) {
    Labels by = of;
    by["pattern"] = step.step;
    std::vector<Part> parts;
    double together = 0;
    for (const auto& backend : change.values(std::string(kBackend) + "_count", "backend", by)) {
      Labels with_backend = by;
      with_backend["backend"] = backend;
      for (const auto& operation : change.values(std::string(kBackend) + "_count", "operation", with_backend)) {
        Labels with_operation = with_backend;
        with_operation["operation"] = operation;
        const double calls = change.count(kBackend, with_operation);
        if (calls == 0) continue;
        const double took = change.total(kBackend, with_operation);
        together += took;
        parts.push_back({step.step, backend + " " + operation, took, calls});
        if (step.step == "log") step.calls = std::max(step.calls, calls);
      }
    }
    if (parts.empty()) {
      // Nobody asked the log: what is left is the measuring.
      if (step.step == "log") step.seconds = 0;
      continue;
    }
    // Operations of one request may run side by side: their times are shares of what the step took then.
    const double scale = together > step.seconds && together > 0 ? step.seconds / together : 1;
    for (auto& part : parts) part.seconds *= scale;
    parts.push_back({step.step, "itself", step.seconds - together * scale, step.calls});
    std::ranges::move(parts, std::back_inserter(out.parts));
  }
  std::erase_if(out.steps, [](const Part& step) { return step.step == "log" && step.seconds == 0; });
  return out;
}

ordered_json to_json(const Profile& profile, const std::string& ns, double interval) {
  const auto share = [&](double s) { return profile.seconds > 0 ? s / profile.seconds : 0; };
  const auto mean = [&](double s) { return profile.publishes > 0 ? s / profile.publishes : 0; };
  ordered_json steps = ordered_json::array();
  for (const auto& step : profile.steps) {
    ordered_json parts = ordered_json::array();
    for (const auto& part : profile.parts) {
      if (part.step != step.step) continue;
      parts.push_back({{"operation", part.operation},
                       {"share", share(part.seconds)},
                       {"mean_seconds", mean(part.seconds)},
                       {"calls", part.calls}});
    }
    steps.push_back({{"step", step.step},
                     {"share", share(step.seconds)},
                     {"mean_seconds", mean(step.seconds)},
                     {"calls", step.calls},
                     {"parts", std::move(parts)}});
  }
  ordered_json out = {{"namespace", ns},
                      {"interval_seconds", interval},
                      {"publishes", profile.publishes},
                      {"mean_seconds", mean(profile.seconds)},
                      {"p50_seconds", profile.p50},
                      {"p99_seconds", profile.p99},
                      {"steps", std::move(steps)},
                      {"most", nullptr}};
  const auto most = std::ranges::max_element(profile.steps, {}, &Part::seconds);
  if (profile.publishes > 0 && most != profile.steps.end()) out["most"] = most->step;
  return out;
}

std::string format_profile(const ordered_json& shown, bool with_patterns) {
  const auto number = [](const ordered_json& row, const char* key) { return row.at(key).get<double>(); };
  std::string out = fmt::format("{}: {:.0f} publishes in {:.1f} s, mean {}, in the chain p50 {}, p99 {}\n\n",
                                shown.at("namespace").get<std::string>(), number(shown, "publishes"),
                                number(shown, "interval_seconds"), time_text(number(shown, "mean_seconds")),
                                time_text(number(shown, "p50_seconds")), time_text(number(shown, "p99_seconds")));
  for (const auto& step : shown.at("steps")) {
    out += fmt::format("  {:5.1f} %  {:>9}  {}\n", 100 * number(step, "share"), time_text(number(step, "mean_seconds")),
                       step.at("step").get<std::string>());
    for (const auto& part : step.at("parts")) {
      out += fmt::format("  {:5.1f} %  {:>9}    {}\n", 100 * number(part, "share"),
                         time_text(number(part, "mean_seconds")), part.at("operation").get<std::string>());
    }
  }
  if (!with_patterns)
    out += "\nThe namespace has `observability: {pattern_metrics: false}`: its patterns are not told apart.\n";
  if (shown.at("most").is_string()) {
    const auto name = shown.at("most").get<std::string>();
    for (const auto& step : shown.at("steps")) {
      if (step.at("step") == name)
        out +=
            fmt::format("\n{} adds most latency: {:.1f} % of a publish's time.\n", name, 100 * number(step, "share"));
    }
  }
  return out;
}

// --- the commands ---

Exit refuse(const Error& error, Format format) {
  print_error(error, format);
  return error.reason == "NOT_REACHABLE" ? Exit::unreachable : Exit::failed;
}

Result<std::vector<std::string>> chain_of(const Options& options) {
  PRISM_TRY(const auto answer, admin::get(options.admin, "/namespaces", std::chrono::seconds(10)));
  const auto found = nlohmann::json::parse(answer.body, nullptr, false);
  std::string known;
  if (found.is_object() && found.contains("namespaces")) {
    for (const auto& ns : found["namespaces"]) {
      if (ns.value("name", "") == options.namespace_name) return ns.value("chain", std::vector<std::string>());
      known += (known.empty() ? "" : ", ") + ns.value("name", "");
    }
  }
  return fail(Code::not_found, "NAMESPACE_NOT_FOUND", "there is no namespace \"" + options.namespace_name + "\"",
              known.empty() ? "the server has no namespaces yet" : "the namespaces are: " + known);
}

void print_json(const ordered_json& value) {
  fmt::print("{}\n", value.dump(2, ' ', false, ordered_json::error_handler_t::replace));
  std::fflush(stdout);
}

Exit profile(const Options& options) {
  Signals signals;
  const auto chain = chain_of(options);
  if (!chain) return refuse(chain.error(), options.format);
  auto before = Scrape::take(options.admin);
  if (!before) return refuse(before.error(), options.format);
  signals.wait(Clock::now() + seconds(options.seconds));  // Ctrl-C: what there is so far
  auto after = Scrape::take(options.admin);
  if (!after) return refuse(after.error(), options.format);
  const Change change(std::move(*before), std::move(*after));
  const Profile found = profile_of(change, options.namespace_name, *chain);
  const auto shown = to_json(found, options.namespace_name, change.seconds());
  if (options.format == Format::json) {
    print_json(shown);
  } else {
    fmt::print("{}", format_profile(shown, found.with_patterns));
  }
  if (found.publishes > 0) return Exit::good;
  fmt::print(stderr, "nothing was published to {} meanwhile\n", options.namespace_name);
  return Exit::timed_out;
}

Exit top(const Options& options) {
  if (options.profile) return profile(options);
  Signals signals;
  if (!options.namespace_name.empty()) {
    if (const auto chain = chain_of(options); !chain) return refuse(chain.error(), options.format);
  }
  auto before = Scrape::take(options.admin);
  if (!before) return refuse(before.error(), options.format);
  const bool redraw = options.format == Format::text && !options.once && ::isatty(STDOUT_FILENO) != 0;
  while (true) {
    if (signals.wait(Clock::now() + seconds(options.seconds)) == Signals::Event::signal) return Exit::good;
    auto after = Scrape::take(options.admin);
    if (!after) return refuse(after.error(), options.format);
    const auto shown = measure(Change(std::move(*before), *after), options.namespace_name);
    if (options.format == Format::json) {
      if (options.once) {
        print_json(shown);
      } else {  // a line each
        fmt::print("{}\n", shown.dump(-1, ' ', false, ordered_json::error_handler_t::replace));
        std::fflush(stdout);
      }
    } else {
      fmt::print("{}{}", redraw ? "\x1b[H\x1b[2J" : "", format_text(shown, options.admin));
      if (!options.once && !redraw) fmt::print("\n");
      std::fflush(stdout);
    }
    if (options.once) return Exit::good;
    before = std::move(after);
  }
}

void add_common(CLI::App& command, Options& options) {
  command.add_option("--admin", options.admin, "Where the admin server is; also from PRISM_ADMIN")
      ->envname("PRISM_ADMIN")
      ->type_name("HOST:PORT")
      ->default_str(options.admin);
  add_format(command, options.format);
}

}  // namespace

void add_top(CLI::App& root, Run& chosen) {
  auto options = std::make_shared<Options>();
  auto* command = root.add_subcommand(
      "top", "Watch a running server: rates and latencies by namespace, pattern and backend, and its jobs");
  add_common(*command, *options);
  auto* name = command->add_option("--namespace", options->namespace_name, "Only this namespace")->type_name("NAME");
  command->add_option("--interval", options->seconds, "Measure over so long, then show")
      ->type_name("SECONDS")
      ->default_str("2")
      ->check(CLI::Range(0.1, 3600.0).description(""));
  command->add_flag("--once", options->once, "Show once instead of again and again until Ctrl-C");
  command->add_flag("--profile", options->profile, "Instead of that, what `prism profile` shows of --namespace")
      ->needs(name);
  command->footer(
      "Examples:\n  prism top\n  prism top --namespace media --once --format json\n\n"
      "Latencies are read off histograms: exact to the bucket. All of it is at /metrics too.\n"
      "Exit codes: 0 shown; 1 what came cannot be read; 3 no admin server answers.");
  command->callback([&chosen, options] { chosen = [options] { return top(*options); }; });
}

void add_profile(CLI::App& root, Run& chosen) {
  auto options = std::make_shared<Options>();
  options->seconds = 10;
  auto* command = root.add_subcommand(
      "profile",
      "Show where the time of a namespace's publishes goes: which pattern, and which backend, adds how much");
  command->add_option("NAMESPACE", options->namespace_name, "The namespace")->required()->type_name("");
  command->add_option("--seconds", options->seconds, "Measure for so long; Ctrl-C ends it early")
      ->type_name("SECONDS")
      ->default_str("10")
      ->check(CLI::Range(0.1, 86400.0).description(""));
  add_common(*command, *options);
  command->footer(
      "A step's time is its own: that of the steps inside of it is left out, what it waits for its backends is not.\n"
      "Background work (the outbox's relay, clean-up) is no part of a publish; see `prism top`.\n\n"
      "Example:\n  prism profile media --seconds 30\n\n"
      "Exit codes: 0 shown; 1 there is no such namespace; 3 no admin server answers; 4 nothing was published "
      "meanwhile.");
  command->callback([&chosen, options] { chosen = [options] { return profile(*options); }; });
}

}  // namespace prism::cli
