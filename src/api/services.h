// The gRPC services: each method makes a call object and starts its handler.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/impl/service_type.h>

#include <memory>
#include <vector>

#include "api/messaging.h"

namespace prism::api {

// Session, PubSub and Queue. `serving` outlives them.
std::vector<std::unique_ptr<grpc::Service>> make_services(const Serving& serving);

// Answers every method that is not built: METHOD_NOT_AVAILABLE for those of the contract, METHOD_UNKNOWN for others.
class NotAvailableService final : public grpc::CallbackGenericService {
 public:
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* context) override;
};

}  // namespace prism::api
