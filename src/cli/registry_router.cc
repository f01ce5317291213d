#include "cli/registry_router.h"

namespace prism::cli {

namespace {

api::Route to_route(Target target) {
  api::Route route;
  route.publisher = &target.ns->publisher();
  route.subscriber = &target.ns->subscriber();
  route.topic = std::move(target.topic);
  route.api = to_string(target.ns->api());
  route.serves_pubsub = target.ns->spec().serves(ClientApi::pubsub);
  route.serves_queue = target.ns->spec().serves(ClientApi::queue);
  route.keeps_call_order =
      target.ns->chain().size() == 1;  // the log alone does; a pattern may suspend before it submits
  route.trace_patterns = target.ns->spec().observability.trace_patterns;
  route.namespace_name = target.ns->name();
  route.replaced = target.ns->replaced();
  route.keep = std::move(target.ns);
  return route;
}

}  // namespace

Result<api::Route> RegistryRouter::resolve(std::string_view bound, std::string_view name) const {
  PRISM_TRY(auto target, registry_.resolve(bound, name));
  return to_route(std::move(target));
}

Result<api::Route> RegistryRouter::resolve_to_subscribe(std::string_view bound, std::string_view name) const {
  PRISM_TRY(auto target, registry_.resolve(bound, name, Registry::Use::other));
  return to_route(std::move(target));
}

Result<std::string_view> RegistryRouter::api_of(std::string_view namespace_name) const {
  PRISM_TRY(const auto target, registry_.resolve(namespace_name, {}, Registry::Use::other));
  return to_string(target.ns->api());
}

}  // namespace prism::cli
