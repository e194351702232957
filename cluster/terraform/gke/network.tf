# A network of its own: nodes without public addresses, and a way out through NAT.
resource "google_compute_network" "main" {
  name                    = var.name
  auto_create_subnetworks = false
}

resource "google_compute_subnetwork" "nodes" {
  name                       = "${var.name}-nodes"
  network                    = google_compute_network.main.id
  ip_cidr_range              = "10.20.0.0/20"
  private_ip_google_access   = true
  private_ipv6_google_access = "DISABLE_GOOGLE_ACCESS"

  secondary_ip_range {
    range_name    = "pods"
    ip_cidr_range = "10.24.0.0/14"
  }

  secondary_ip_range {
    range_name    = "services"
    ip_cidr_range = "10.28.0.0/20"
  }

  log_config {
    aggregation_interval = "INTERVAL_10_MIN"
    flow_sampling        = 0.1
    metadata             = "INCLUDE_ALL_METADATA"
  }
}

# Where the proxies of a regional load balancer are: the chart's networkPolicy.callers has this range.
resource "google_compute_subnetwork" "proxies" {
  name          = "${var.name}-proxies"
  network       = google_compute_network.main.id
  ip_cidr_range = "10.20.240.0/23"
  purpose       = "REGIONAL_MANAGED_PROXY"
  role          = "ACTIVE"
}

resource "google_compute_router" "main" {
  name    = var.name
  network = google_compute_network.main.id
}

resource "google_compute_router_nat" "main" {
  name                               = var.name
  router                             = google_compute_router.main.name
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"
}

# Where Google puts the database and Redis, as a part of this network.
resource "google_compute_global_address" "services" {
  name          = "${var.name}-google-services"
  network       = google_compute_network.main.id
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  prefix_length = 20
}

resource "google_service_networking_connection" "services" {
  network                 = google_compute_network.main.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.services.name]
}

# Names that stay when the database or Redis is made anew: db.ztom.internal, redis.ztom.internal.
resource "google_dns_managed_zone" "internal" {
  name        = "${var.name}-internal"
  dns_name    = "ztom.internal."
  description = "Z-TOM's database and Redis"
  visibility  = "private"

  private_visibility_config {
    networks {
      network_url = google_compute_network.main.id
    }
  }
}

resource "google_dns_record_set" "internal" {
  for_each = {
    db    = google_sql_database_instance.ledger.private_ip_address
    redis = google_redis_instance.head.host
  }

  managed_zone = google_dns_managed_zone.internal.name
  name         = "${each.key}.${google_dns_managed_zone.internal.dns_name}"
  type         = "A"
  ttl          = 60
  rrdatas      = [each.value]
}
