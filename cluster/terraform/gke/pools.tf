# Pools of machines. Each is found by its label ztom/pool, and costs nothing while it is empty.
resource "google_container_node_pool" "pools" {
  for_each = var.pools

  name     = each.key
  cluster  = google_container_cluster.main.id
  location = var.region

  autoscaling {
    total_min_node_count = each.value.min
    total_max_node_count = each.value.max
    # spot machines are taken where there are some, others in balance
    location_policy = each.value.spot ? "ANY" : "BALANCED"
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  # one machine more before one goes; the pods' disruption budgets and drains decide the rest
  upgrade_settings {
    strategy        = "SURGE"
    max_surge       = 1
    max_unavailable = 0
  }

  node_config {
    machine_type    = each.value.machine
    spot            = each.value.spot
    disk_size_gb    = each.value.disk_gb
    disk_type       = "pd-balanced"
    image_type      = "COS_CONTAINERD"
    service_account = google_service_account.nodes.email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
    labels          = { "ztom/pool" = each.key }
    resource_labels = merge(local.labels, { pool = each.key })
    tags            = ["${var.name}-node"]
    metadata        = { disable-legacy-endpoints = "true" }

    # images of ten gigabytes are streamed instead of waited for
    gcfs_config {
      enabled = true
    }

    gvnic {
      enabled = true
    }

    workload_metadata_config {
      mode = "GKE_METADATA"
    }

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    dynamic "guest_accelerator" {
      for_each = each.value.gpus > 0 ? [each.value] : []
      content {
        type  = guest_accelerator.value.accelerator
        count = guest_accelerator.value.gpus
        gpu_driver_installation_config {
          gpu_driver_version = "LATEST"
        }
      }
    }

    # what has no GPU to ask for stays away from machines that have
    dynamic "taint" {
      for_each = each.value.gpus > 0 ? ["present"] : []
      content {
        key    = "nvidia.com/gpu"
        value  = taint.value
        effect = "NO_SCHEDULE"
      }
    }

    dynamic "taint" {
      for_each = each.value.spot ? ["true"] : []
      content {
        key    = "cloud.google.com/gke-spot"
        value  = taint.value
        effect = "NO_SCHEDULE"
      }
    }
  }

  lifecycle {
    ignore_changes = [initial_node_count]
  }
}
