#include "cli/registry_router.h"

namespace prism::cli {

Result<api::Route> RegistryRouter::resolve(std::string_view bound, std::string_view name) const {
  PRISM_TRY(auto target, registry_.resolve(bound, name));
  api::Route route;
  route.publisher = &target.ns->publisher();
  route.subscriber = &target.ns->subscriber();
  route.topic = std::move(target.topic);
  route.api = to_string(target.ns->api());
  route.serves_pubsub = target.ns->spec().serves(ClientApi::pubsub);
  route.serves_queue = target.ns->spec().serves(ClientApi::queue);
  route.keeps_call_order =
      target.ns->chain().size() == 1;  // the log alone does; a pattern may suspend before it submits
  route.namespace_name = target.ns->name();
  route.keep = std::move(target.ns);
  return route;
}

Result<std::string_view> RegistryRouter::api_of(std::string_view namespace_name) const {
  PRISM_TRY(const auto target, registry_.resolve(namespace_name, {}));
  return to_string(target.ns->api());
}

}  // namespace prism::cli
