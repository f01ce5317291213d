// What the client commands share: where the server is, how a call is bound to a namespace, what its errors say.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "base/error.h"
#include "cli/command.h"

namespace prism::cli {

struct ClientOptions {
  std::string address = "127.0.0.1:8980";
  std::string namespace_name;  // empty: unbound
  Format format = Format::text;
};

// Adds --address, --namespace, --format.
void add_client_options(CLI::App& command, ClientOptions& options);

std::shared_ptr<grpc::Channel> connect(const ClientOptions& options);
void bind(grpc::ClientContext& context, const ClientOptions& options);

// From the google.rpc details where the server gave them.
Error to_error(const grpc::Status& status, const ClientOptions& options);
// Prints the error of a failed call and says what to exit with.
Exit failed(const grpc::Status& status, const ClientOptions& options);

}  // namespace prism::cli
