// The API's view of the namespaces.
#pragma once

#include "api/router.h"
#include "namespaces/registry.h"

namespace prism::cli {

class RegistryRouter final : public api::Router {
 public:
  explicit RegistryRouter(const Registry& registry) : registry_(registry) {}  // which outlives it
  Result<api::Route> resolve(std::string_view bound, std::string_view name) const override;
  Result<api::Route> resolve_to_subscribe(std::string_view bound, std::string_view name) const override;
  Result<std::string_view> api_of(std::string_view namespace_name) const override;

 private:
  const Registry& registry_;
};

}  // namespace prism::cli
