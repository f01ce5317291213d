#include "cli/summary_json.h"

namespace prism::cli {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const std::vector<Because>& reasons) {
  Json out = Json::array();
  for (const auto& [step, why] : reasons) out.push_back({{"step", step}, {"why", why}});
  return out;
}

template <class Level>
Json to_json(const Claim<Level>& claim) {
  return {{"level", to_string(claim.level)}, {"text", claim.text}, {"because", to_json(claim.because)}};
}

Json to_json(const Survival& survival) {
  return {{"process_kill", to_string(survival.process_kill)},
          {"power_loss", to_string(survival.power_loss)},
          {"disk_loss", to_string(survival.disk_loss)},
          {"site_power_loss", to_string(survival.site_power_loss)}};
}

Json to_json(const Guarantees& given) {
  Json out;
  out["acknowledged"] = given.acknowledged;
  out["durability"] = {{"survives", to_json(given.survival)}, {"because", to_json(given.durability)}};
  // What is read and written, and not published, has neither delivery nor order.
  if (!given.delivery.text.empty()) out["delivery"] = to_json(given.delivery);
  if (!given.order.text.empty()) out["order"] = to_json(given.order);
  out["atomicity"] = to_json(given.atomicity);
  out["freshness"] = to_json(given.freshness);
  out["limits"] = to_json(given.limits);
  return out;
}

}  // namespace

Json to_json(const NamespaceSummary& summary) {
  Json jobs = Json::array(), backends = Json::array(), options = Json::object();
  for (const auto& [name, does] : summary.jobs) jobs.push_back({{"name", name}, {"does", does}});
  for (const auto& backend : summary.backends) {
    backends.push_back({{"name", backend.name},
                        {"type", backend.type},
                        {"roles", backend.roles},
                        {"binding", to_string(backend.binding)},
                        {"survives", to_json(backend.survival)},
                        {"why", backend.survival.why}});
  }
  for (const auto& [path, value] : summary.options) options[path] = value.shown;
  return {{"name", summary.name},
          {"client_api", to_string(summary.api)},
          {"apis", summary.apis},
          {"patterns", summary.patterns},
          {"chain", summary.chain},
          {"beside", summary.beside},
          {"reordered", summary.reordered},
          {"consumer_groups", summary.consumer_groups},
          {"jobs", std::move(jobs)},
          {"backends", std::move(backends)},
          {"guarantees", to_json(summary.guarantees)},
          {"options", std::move(options)}};
}

Json to_json(const config::Diagnostics& diagnostics) {
  const std::size_t all = diagnostics.items().size();
  return {{"errors", diagnostics.error_count()},
          {"warnings", all - diagnostics.error_count()},
          {"truncated", all > config::Diagnostics::kShown},
          {"diagnostics", Json::parse(config::format_json(diagnostics))}};
}

}  // namespace prism::cli
